"""What a user's own tests get: the marker that runs a test on ranks, and the drill as a fixture."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
RANKS = """
import os, sys, time, pytest
import torch, torch.distributed as dist

pytestmark = pytest.mark.torchrun(nproc=2)
RANK = int(os.environ.get("RANK", -1))

@pytest.fixture
def group():
    assert RANK >= 0, "fixtures are made on the ranks alone"
    dist.init_process_group("gloo")
    yield
    dist.destroy_process_group()

def test_sum(group):
    total = torch.tensor([RANK + 1])
    dist.all_reduce(total)
    assert total.item() == 3

@pytest.mark.parametrize("value", [1, 2])
def test_one_rank_fails(value):
    assert RANK != 1 or value != 2, "only this rank knows"

def test_a_rank_dies():
    if RANK == 1:
        os._exit(7)

@pytest.mark.torchrun(nproc=2, timeout_s=15)
def test_a_rank_hangs():
    if RANK == 1:
        time.sleep(100)

def test_skipped():
    pytest.skip("no such GPU")

@pytest.mark.xfail(reason="known")
def test_expected_to_fail():
    assert False

@pytest.fixture
def broken():
    raise RuntimeError("cannot be made")

def test_with_a_broken_fixture(broken):
    pass
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A user's pytest in a project of theirs."""

    def run(text: str, *words: str, options: str = "") -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_mine.py").write_text(text)
        (tmp_path / "pytest.ini").write_text(f"[pytest]\naddopts = --strict-markers {options}\nmarkers = slow\n")
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-rA", *words], cwd=tmp_path, env=own,
            capture_output=True, text=True, timeout=380, check=False,
        )  # fmt: skip

    return run


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_marked_test_runs_on_every_rank_and_has_their_outcome(run: Run) -> None:
    # As with a project that runs its tests in parallel and leaves some out.
    done = run(RANKS, options="-n2 -m 'not slow'")
    told = {name: outcome for outcome, name in re.findall(r"^(\w+) test_mine\.py::(\S+)", done.stdout, re.M)}
    assert told == {
        "test_sum": "PASSED",
        "test_one_rank_fails[1]": "PASSED",
        "test_one_rank_fails[2]": "FAILED",
        "test_a_rank_dies": "FAILED",
        "test_a_rank_hangs": "FAILED",
        "test_expected_to_fail": "XFAIL",
        "test_with_a_broken_fixture": "FAILED",
    }, done.stdout
    assert re.search(r"^SKIPPED .*: no such GPU$", done.stdout, re.M)
    assert "rank 1: " in done.stdout and "only this rank knows" in done.stdout
    assert "rank 0: " not in done.stdout.split("test_one_rank_fails[2]")[1].split("test_a_rank_dies")[0]
    assert "it left no outcome: it died or hung" in done.stdout
    assert "the ranks did not end within 15 s" in done.stdout
    assert "cannot be made" in done.stdout
    assert done.stdout.rstrip().endswith("=") and "4 failed, 2 passed, 1 skipped, 1 xfailed" in done.stdout


def test_the_plugin_may_be_named_and_costs_nothing_where_it_is_not_used(run: Run) -> None:
    done = run(
        "import sys\npytest_plugins = ['runctl.drill.pytest']\n"
        "def test_light():\n"
        "    assert not {'torch', 'moto', 'boto3', 'runctl.drill.cloud'} & set(sys.modules)\n"
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(300)
@pytest.mark.soak  # test_rehearsals.py drills the same
def test_a_user_drills_a_training_in_a_test_of_theirs(run: Run, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "digits_resume.py"
    (tmp_path / "train.py").write_bytes(example.read_bytes())
    done = run(
        "WORDS = ('script=train.py', 'args.epochs=40')\n"
        "def test_my_training_survives(runctl_cloud):\n"
        "    drilled = runctl_cloud.drill('spot', *WORDS)\n"
        "    assert drilled.exit_code == 0, drilled.err\n"
        "    assert len(drilled.report['attempts']) == 2\n"
        "    assert drilled.report['steps_lost'] == 0\n"
        "    assert drilled.report['left_running'] == []\n"
        "    assert drilled.out.splitlines()[-1] == runctl_cloud.local(*WORDS).out.splitlines()[-1]\n"
    )
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "runs").exists(), "the project stays as it was"
