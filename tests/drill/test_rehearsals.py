"""Whole launches in the drill: what is lost, what is left, and that the weights are those of a run in peace."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runctl.drill import rehearsal
from runctl.errors import ConfigError

LAUNCH = Path(sys.executable).with_name("runctl-launch")
EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_resume.py"
TRAINING = ("trainer=ddp", "trainer.nproc_per_node=2", "script=digits_resume.py", "args.epochs=40")
DRILL = ("+platform=aws", *TRAINING)
TIMEOUT_S = 280

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "digits_resume.py").write_bytes(EXAMPLE.read_bytes())
    # As on a user's own machine, with an account that the drill must not see.
    account = {"AWS_PROFILE": "production", "AWS_ACCESS_KEY_ID": "AKIAREAL", "AWS_SESSION_TOKEN": "real"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(LAUNCH), *words], cwd=tmp_path, env={**os.environ, **account, "XDG_CONFIG_HOME": str(tmp_path)},
            capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    return run


def weights(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return re.findall(r"^weights (\w+)", done.stdout, re.M)[-1]


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_a_notice_costs_no_step_and_changes_no_bit(run: Run) -> None:
    done = run(*DRILL, "drill=spot")
    assert weights(done) == weights(run(*TRAINING))
    assert "2 attempts in" in done.stderr
    assert " 0 steps lost" in done.stderr
    assert "Nothing is left running." in done.stderr
    zones = re.findall(r"g6\.xlarge spot in (us-east-1\w)", done.stderr)
    assert len(set(zones)) == 2, "the next attempt goes to another zone"
    assert re.search(r"resuming from step [1-9]\d* ", done.stdout), done.stdout


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_on_a_real_s3_server_it_is_the_same(run: Run) -> None:
    done = run(*DRILL, "drill=spot", "drill.s3=swift")
    assert weights(done) == weights(run(*TRAINING))
    assert "2 attempts in" in done.stderr
    assert " 0 steps lost" in done.stderr
    assert "Nothing is left running." in done.stderr


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_a_host_that_vanishes_costs_what_was_done_since_the_last_checkpoint(run: Run) -> None:
    events = "drill.events=[{at_step: 500, do: kill}]"
    words = ("checkpoint.every=100steps", "args.epochs=150", "platform.keep_warm=5m")
    done = run(*DRILL, "drill=no_notice", events, *words)
    assert weights(done) == weights(run(*TRAINING, "args.epochs=150"))
    assert "2 attempts in" in done.stderr
    assert "platform.keep_warm is left out" in done.stderr
    assert "Nothing is left running." in done.stderr


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("scenario", ["capacity", "flaky_api", "launcher_killed", "slow_s3"])
def test_every_other_scenario_ends_with_the_same_weights_and_nothing_running(run: Run, scenario: str) -> None:
    done = run(*DRILL, f"drill={scenario}")
    assert weights(done) == weights(run(*TRAINING))
    assert "Nothing is left running." in done.stderr
    told = {
        "capacity": "going on demand, 0.80 USD an hour instead of 0.26 USD",
        "flaky_api": "1 attempt in",
        "launcher_killed": ": following it",
        "slow_s3": " 0 steps lost",
    }
    assert told[scenario] in done.stderr


#: Checkpoints stay on a pod until there are three newer ones: they must not come faster than they can be brought.
PODS = ("+platform=runpod", *TRAINING, "args.epochs=150", "checkpoint.every=2s")
ON_S3 = ("run.root=s3://bucket/runs",)
FETCHED = (
    "platform.transport=start_command",
    "secrets.AWS_ACCESS_KEY_ID=runpod:my_key_id",
    "secrets.AWS_SECRET_ACCESS_KEY=runpod:my_key",
)


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_a_pod_that_vanishes_without_object_storage_changes_no_bit(run: Run, tmp_path: Path) -> None:
    done = run(*PODS, "drill=no_notice", "drill.events=[{at_step: 2400, do: kill}]")
    assert weights(done) == weights(run(*TRAINING, "args.epochs=150"))
    assert "2 attempts in" in done.stderr
    assert "On RunPod these hosts would have cost" in done.stderr
    assert "Nothing is left running." in done.stderr
    assert re.search(r"resuming from step [1-9]\d* ", done.stdout), done.stdout
    assert not (tmp_path / ".local").exists()


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_a_pod_that_nobody_logs_in_to_and_that_vanishes_changes_no_bit(run: Run) -> None:
    # Swift verifies signatures: those of the pod's first program among them.
    done = run(*PODS, *ON_S3, *FETCHED, "drill.s3=swift", "drill=no_notice", "drill.events=[{at_step: 2400, do: kill}]")
    assert weights(done) == weights(run(*TRAINING, "args.epochs=150"))
    assert "2 attempts in" in done.stderr
    assert "Nothing is left running." in done.stderr
    assert re.search(r"resuming from step [1-9]\d* ", done.stdout), done.stdout


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("how", [("run.root=runs",), ON_S3, (*ON_S3, *FETCHED)], ids=["ssh", "ssh-s3", "start_command"])
@pytest.mark.parametrize("scenario", ["spot", "launcher_killed"])
def test_on_pods_it_is_the_same_however_they_are_reached(run: Run, scenario: str, how: tuple[str, ...]) -> None:
    at = {"spot": "drill.events=[{at_step: 400, do: interrupt}]"}.get(scenario, "drill.s3=moto")
    done = run(*PODS, f"drill={scenario}", at, *how)
    assert weights(done) == weights(run(*TRAINING, "args.epochs=150"))
    assert ("2 attempts in" if scenario == "spot" else ": following it") in done.stderr
    assert "Nothing is left running." in done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("drill=capacity",), "RunInstances is no call of RunPod's"),
        (("drill=spot", "drill.events=[{do: rebalance}]"), "RunPod recommends nothing"),
    ],
)
def test_what_cannot_happen_on_runpod_is_said_at_once(run: Run, words: tuple[str, ...], why: str) -> None:
    done = run(*PODS, *words)
    assert done.returncode == 2
    assert why in done.stderr


def test_a_drill_refuses_to_go_anywhere_but_to_loopback() -> None:
    inside = {rehearsal.INSIDE: "http://127.0.0.1:5", "AWS_ENDPOINT_URL": "http://127.0.0.1:5"}
    assert rehearsal.is_inside(inside)
    assert not rehearsal.is_inside({"AWS_ENDPOINT_URL": "https://example.org"})
    for more in (
        {"AWS_ENDPOINT_URL": "https://example.org"},
        {"AWS_ENDPOINT_URL_EC2": "https://example.org"},
        {"AWS_PROFILE": "production"},
        {"RUNPOD_API_BASE_URL": "https://api.runpod.io"},
        {rehearsal.INSIDE: "http://127.0.0.1:5,http://127.0.0.1:6"},
        {rehearsal.INSIDE: "https://example.org", "AWS_ENDPOINT_URL": "https://example.org"},
    ):
        with pytest.raises(ConfigError, match="a drill goes to loopback alone"):
            rehearsal.is_inside({**inside, **more})


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ("[{at_step: 3}]", "write what happens, such as {at_step: 20, do: interrupt}"),
        ("[{do: explode}]", "do is one of interrupt, kill, kill_launcher, rebalance, fault"),
        ("[{do: kill, at_stp: 3}]", "at_stp is none of do, at, at_step"),
        ("[{do: kill, at: soon}]", "at=soon: write a duration"),
        ("[{do: fault, code: X}]", "name the API call that fails"),
    ],
)
def test_an_event_that_cannot_be_is_named_at_once(run: Run, events: str, why: str) -> None:
    done = run(*DRILL, "drill=spot", f"drill.events={events}")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert why in line


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_a_sweep_is_rehearsed_as_one_and_its_first_job_is_the_one_that_is_interrupted(run: Run, tmp_path: Path) -> None:
    words = ("-m", "script=digits_resume.py", "args.epochs=20,30", "sweep.metric=loss", "sweep.max_parallel=2")
    done = run(*words, "+platform=aws", "drill=spot", "drill.report=drill.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("drill: AWS takes i-") == 1
    told = json.loads((tmp_path / "drill.json").read_text())
    assert [job["state"] for job in told["jobs"]] == ["succeeded"] * 2
    assert sorted(len(job["ends"]) for job in told["jobs"]) == [1, 2]
    assert (told["steps_lost"], told["hosts"], told["left_running"]) == (0, 3, [])
    assert "2 jobs with 3 attempts on 3 hosts in" in done.stderr
    alone = run(*words, "output=json")
    rows = {row["overrides"]["args.epochs"]: row for row in json.loads(alone.stdout.splitlines()[-1])["jobs"]}
    for job in told["jobs"]:
        twin = rows[job["overrides"]["args.epochs"]]
        # As the training logged it, or as it printed it, whichever came last.
        assert job["step"] == twin["step"] and job["metrics"]["loss"] == pytest.approx(
            twin["metrics"]["loss"], abs=1e-4
        )
