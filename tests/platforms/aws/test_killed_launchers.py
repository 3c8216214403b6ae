"""`kill -9` of the launcher at any moment: the same launch goes on with the run, and nothing is there twice."""

from __future__ import annotations

import os
import random
import re
import time

import pytest
from waiting import wait_until
from whole import BUCKET, Account

SEED = int(os.environ.get("RUNCTL_SOAK_SEED", "0"))
KILLS = 20
#: The training ends once the test says so, which it does when the launcher has been killed.
SCRIPT = """
import os, time
from pathlib import Path
while not Path({flag!r}).exists():
    time.sleep(0.1)
print("trained", flush=True)
"""
#: A launch is past its start by then; later kills are kills of one that only watches.
LONGEST_S = 18.0
GOES_ON = r"following it|the training runs on"


def killed_and_again(account: Account, run_id: str, after_s: float) -> None:
    flag = account.folder / f"{run_id}.go"
    script = account.project / "train.py"
    script.write_text(SCRIPT.format(flag=str(flag)))
    words = ("trainer=single", "script=train.py", f"run.id={run_id}", f"run.root=s3://{BUCKET}/runs")
    first = account.start(*words)
    time.sleep(after_s)
    assert first.poll() is None, account.said(first)
    first.kill()
    first.wait()
    before = account.instances(run_id)
    again = account.start(*words)
    wait_until(lambda: re.search(GOES_ON, account.said(again)[1]), 150, "it goes on")
    flag.touch()
    code = again.wait(120)
    out, err = account.said(again)
    assert code == 0, err
    assert "trained" in out, err
    assert "Traceback" not in err
    after = account.instances(run_id)
    assert len(after) == 1, err
    assert {one["id"] for one in before} <= {one["id"] for one in after}, err
    account.check_that_nothing_runs(20)
    script.unlink()


@pytest.mark.slow
def test_killed_while_it_watches_the_same_launch_picks_the_run_up(account: Account) -> None:
    killed_and_again(account, "watched", LONGEST_S)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_at_twenty_random_moments_nothing_is_there_twice_and_nothing_is_left(account: Account) -> None:
    chance = random.Random(SEED)
    for number in range(KILLS):
        after_s = (number + chance.random()) / KILLS * LONGEST_S
        print(f"kill {number} of seed {SEED}: after {after_s:.2f} s")
        killed_and_again(account, f"killed-{number}", after_s)
