"""A real launch that tells people of itself, over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from web_inbox import Inbox

LAUNCH = Path(sys.executable).parent / "runctl-launch"
SCRIPT = """
import os
assert "NOTIFY_MY_CHAT" not in os.environ
print("step=1 loss=0.5", flush=True)
raise SystemExit(3)
"""


def test_a_run_tells_of_its_begin_and_its_end_and_keeps_the_address_to_itself(tmp_path: Path) -> None:
    inbox = Inbox()
    (tmp_path / "train.py").write_text(SCRIPT)
    env = {**os.environ, "MY_CHAT": inbox.address, "XDG_STATE_HOME": str(tmp_path / "state")}
    words = [str(LAUNCH), "script=train.py", "run.id=told", "notify=[env:MY_CHAT]"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    inbox.shut()
    assert done.returncode == 3, done.stderr
    assert [one["title"] for one in inbox.taken] == ["told started", "told made its first step", "told has failed"]
    assert inbox.taken[-1]["message"].splitlines()[1:] == [
        "step 1 loss=0.5",
        f"attempt 1 on local {os.uname().nodename}",
    ]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"a-secret-path" in data for data in (*written, done.stdout.encode(), done.stderr.encode()))


def test_an_address_that_is_missing_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    words = [str(LAUNCH), "script=train.py", "run.id=told", "notify=[env:MY_CHAT]"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "MY_CHAT is not set in the environment" in done.stderr and "Traceback" not in done.stderr
