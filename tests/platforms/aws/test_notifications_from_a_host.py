"""Notifications of a run on AWS: sent by its host, with an address that only the agent gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_secrets import BUCKET, account, environment, objects, ssm
from web_inbox import Inbox

__all__ = ["account", "ssm"]
SCRIPT = """
import os
assert not any(name.startswith("NOTIFY_") or name == "MY_CHAT" for name in os.environ)
print("step=1 loss=0.5", flush=True)
"""
WORDS = ("trainer=single", "script=train.py", "run.id=told", f"run.root=s3://{BUCKET}/runs", "notify=[env:MY_CHAT]")


@pytest.mark.slow
def test_the_host_tells_of_its_run(account, ssm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox()
    (account.project / "train.py").write_text(SCRIPT)
    launch = account.start(*WORDS, env=environment(account.cloud, account.folder, MY_CHAT=inbox.address))
    code = launch.wait(120)
    out, err = account.said(launch)
    inbox.shut()
    assert code == 0, err
    assert [one["title"] for one in inbox.taken] == ["told started", "told made its first step", "told has finished"]
    assert "attempt 1 on aws" in inbox.taken[0]["message"]
    kept = objects(account.cloud)
    assert any(b'"RUNCTL_AGENT_NEEDS": "apprise' in data for data in kept.values()), "the keeper installs it"
    assert not any(b"a-secret-path" in data for data in (*kept.values(), out.encode(), err.encode()))
