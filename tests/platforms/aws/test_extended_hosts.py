"""`runctl extend` on an instance: its shutdown and the limit of its training are put off, and it ends all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_until
from whole import BUCKET, Account

RUNCTL = Path(sys.executable).with_name("runctl")
TIMEOUT_S = 180


@pytest.mark.soak
def test_a_training_that_is_given_more_time_outlives_its_limit_and_its_deadline_is_put_off(account: Account) -> None:
    (account.project / "train.py").write_text("import time\nfor _ in range(60):\n    time.sleep(0.5)\nprint('done')\n")
    launch = account.start(
        "trainer=single", "script=train.py", f"run.root=s3://{BUCKET}/runs", "run.id=longer", "limits.max_time=20s"
    )
    run_dir = f"s3://{BUCKET}/runs/longer"
    wait_until(lambda: account.cloud.read(f"{run_dir}/heartbeat.json"), TIMEOUT_S, "its first heartbeat")
    before = json.loads(account.cloud.read(f"{run_dir}/heartbeat.json") or b"{}")["deadline"]
    state = account.folder / "state"
    done = subprocess.run(
        [str(RUNCTL), "extend", run_dir, "2h", "--json"],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=account.project,
        env=account.cloud.environment({"PATH": "/usr/bin:/bin", "XDG_STATE_HOME": str(state), "HOME": str(state)}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["heard"] and told["max_time_s"] == 7220.0
    assert told["deadline"] == pytest.approx(before + 7200, abs=1)
    assert told["more_usd_at_most"] > 0
    [instance] = account.instances("longer")
    assert launch.wait(TIMEOUT_S) == 0, account.said(launch)
    assert "done" in account.said(launch)[0]
    record = json.loads(account.cloud.read(f"{run_dir}/attempts/1.json") or b"{}")
    assert record["ended_at"] - record["started_at"] > 25, "it took longer than the 20 s of its launch"
    assert instance["tags"]["runctl:deadline"].endswith("minutes after launch")
    account.check_that_nothing_runs(30)
