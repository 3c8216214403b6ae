"""What goes wrong while a pod runs, without object storage: each has its reaction, and nothing is left running."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rented_pods import EVERY_100, FIRST_IS_LONG, SAVES_ONCE, Launch, Yard, loopback, saved, stopped_and_went_on, trains

from runctl.platforms.runpod import boot, start
from runctl.platforms.runpod.ssh import DiskFull
from runctl.spec import Data, RunState, Transfer


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("yard")
    (folder / "project").mkdir()
    with loopback(folder) as cloud:
        yield Yard(cloud, folder / "project")


def went_on(launch: Launch) -> str:
    """Check that a second pod went on and all was given back; how the first attempt ended."""
    assert launch.error is None, launch.told
    assert launch.outcome is not None
    assert launch.outcome.state is RunState.SUCCEEDED, launch.told
    assert len(launch.outcome.attempts) == 2, launch.told
    assert launch.output.count("trained") == 1
    launch.check_that_nothing_is_left()
    return launch.outcome.attempts[0].end_reason


@pytest.mark.soak  # test_rehearsals.py drills the same
def test_a_pod_that_vanishes_is_followed_by_another(yard: Yard) -> None:
    launch = yard.run(FIRST_IS_LONG, when=trains, then=yard.cloud.kill)
    assert "RunPod took its pod" in went_on(launch)


def test_a_line_that_breaks_is_made_anew_and_nothing_is_lost_or_there_twice(yard: Yard) -> None:
    script = """
import time
print("under way", flush=True)
for number in range(40):
    print(f"line {number}", flush=True)
    time.sleep(0.1)
"""
    launch = yard.run(script, when=trains, then=yard.cloud.cut)
    assert launch.outcome is not None, launch.error
    assert launch.outcome.state is RunState.SUCCEEDED, launch.told
    assert len(launch.outcome.attempts) == 1
    lines = [f"line {number}" for number in range(40)]
    assert [line for line in launch.output.splitlines() if line.startswith("line")] == lines
    log = (Path(launch.rundir.url) / "logs/a1/n0/r0.log").read_text()
    assert [line for line in log.splitlines() if line.startswith("line")] == lines
    events = [one["event"] for one in launch.rundir.events()]
    assert [events.count(name) for name in ("attempt_started", "attempt_ended", "run_ended")] == [1, 1, 1]
    launch.check_that_nothing_is_left()


@pytest.mark.slow
def test_the_next_pod_finds_the_checkpoints_of_a_network_volume(yard: Yard) -> None:
    volume = yard.cloud.make_volume("checkpoints")
    script = """
import os, time
from pathlib import Path
there = Path(os.environ["RUNCTL_RUN_DIR"], "kept-by-the-volume")
print("found", there.exists())
there.touch()
""" + FIRST_IS_LONG.replace("import os, time", "")
    launch = yard.run(script, when=trains, then=yard.cloud.kill, network_volume=volume)
    went_on(launch)
    assert "found False" in launch.output
    assert "found True" in launch.output


def test_runpods_sigterm_is_heard_in_time(yard: Yard) -> None:
    launch = yard.run(FIRST_IS_LONG, when=trains, then=yard.cloud.interrupt)
    assert "RunPod takes the pod back at" in went_on(launch)
    [notice] = [one for one in launch.rundir.events() if one["event"] == "notice"]
    assert 4.0 < notice["host_ends_at"] - notice["at"] <= 5.0
    assert {one["attempt"] for one in launch.rundir.usage()} == {1, 2}, "the second pod's is added to the first's"


@pytest.mark.soak  # 20 s
def test_runpods_sigterm_is_heard_and_the_training_saves_before_the_sigkill(yard: Yard) -> None:
    launch = yard.run(
        SAVES_ONCE, when=saved, then=yard.cloud.interrupt, network_volume=yard.cloud.make_volume("saved"),
        spec={"checkpoint": EVERY_100},
    )  # fmt: skip
    stopped_and_went_on(launch)


def test_another_host_key_is_refused_and_the_run_goes_on_elsewhere(yard: Yard) -> None:
    launch = yard.run(FIRST_IS_LONG, when=trains, then=lambda pod: yard.cloud.restart(pod, new_host_key=True))
    assert "another host key than when it was seen first" in went_on(launch)


def test_a_container_that_starts_again_does_not_train_again(yard: Yard) -> None:
    launch = yard.run(FIRST_IS_LONG, when=trains, then=yard.cloud.restart)
    assert "its container was started again" in went_on(launch)
    assert launch.pods[0]["starts"] >= 2


def test_a_container_that_starts_again_while_nobody_looks_ends_its_pod_in_time(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "RESTARTED_S", 2.0)
    launch = yard.left(FIRST_IS_LONG, until=trains)
    yard.cloud.restart(launch.pods[0]["id"])
    began = time.monotonic()
    launch.check_that_nothing_is_left()
    assert time.monotonic() - began < 15
    assert launch.pods[0]["why"] == "terminated by request"


def test_a_pod_that_refuses_for_a_while_is_waited_for(yard: Yard) -> None:
    launch = yard.run(
        "print('trained')", when=lambda launch: bool(launch.pods),
        then=lambda pod: yard.cloud.restart(pod, after_s=4.0),
    )  # fmt: skip
    assert launch.outcome is not None, launch.error
    assert launch.outcome.state is RunState.SUCCEEDED, launch.told
    assert len(launch.outcome.attempts) == 1
    assert "trained" in launch.output
    launch.check_that_nothing_is_left()


def test_a_host_that_cannot_be_brought_up_says_why_and_is_given_back(yard: Yard) -> None:
    launch = yard.run("print('trained')", setup=["echo no such thing; exit 3"])
    assert launch.outcome is not None, launch.error
    assert launch.outcome.state is RunState.FAILED
    assert "setup line 1 ended with code 3" in launch.outcome.reason
    assert "no such thing" in (Path(launch.rundir.url) / "logs/a1/bring-up.log").read_text()
    launch.check_that_nothing_is_left()


def test_a_pod_that_cannot_be_brought_what_it_needs_does_not_stay(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no keeper that would end it."""

    def full(*_: object) -> None:
        raise DiskFull("No space left on device")

    monkeypatch.setattr(start.Bringing, "files", full)
    launch = yard.run("print('trained')", keep_on_failure=None)
    assert launch.outcome is not None, launch.error
    assert "No space left" in launch.outcome.reason
    assert not any("stays for" in line for line in launch.told)
    launch.check_that_nothing_is_left()


def test_secrets_go_over_ssh_alone_and_are_gone_once_they_were_read(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_HERE", "s3cret-value")
    yard.cloud.set_secret("kept", "runpods-own-value")
    script = """
import os
from pathlib import Path
print("worker", os.environ["TOKEN"][::-1], os.environ["KEPT"][::-1])
print("left", list(Path(os.environ["RUNCTL_HOST_ROOT"]).glob("*/a*/secrets/*")))
"""
    launch = yard.run(
        script, spec={"secrets": {"TOKEN": "env:TOKEN_HERE", "KEPT": "runpod:kept"}},
        setup=["test -z \"${TOKEN:-}\""],
    )  # fmt: skip
    assert launch.outcome is not None, launch.error
    assert launch.outcome.state is RunState.SUCCEEDED, launch.told
    assert "worker eulav-terc3s eulav-nwo-sdopnur" in launch.output
    assert "left []" in launch.output
    everything = [path.read_bytes() for path in Path(launch.rundir.url).rglob("*") if path.is_file()]
    asked = json.dumps([one["asked"] for one in launch.pods])
    assert not any(b"s3cret-value" in data for data in everything)
    assert "s3cret-value" not in asked
    assert "runpods-own-value" not in asked.replace("{{ RUNPOD_SECRET_kept }}", "")


def test_data_goes_and_outputs_come_over_ssh(yard: Yard) -> None:
    workdir = yard.project
    (workdir / "numbers").mkdir(exist_ok=True)
    (workdir / "numbers" / "one.txt").write_text("1")
    (workdir / "large.bin").write_bytes(b"x" * 3_000_000)
    script = """
from pathlib import Path
Path("out").mkdir()
Path("out/sum.txt").write_text(Path("brought/one.txt").read_text() * 2 + str(Path("l.bin").stat().st_size))
"""
    data = Data(
        inputs=(Transfer("numbers", "brought"), Transfer("large.bin", "l.bin")),
        outputs=(Transfer("out", "results"), Transfer("nothing", "none")),
    )
    launch = yard.run(script, spec={"data": data})
    assert launch.outcome is not None, launch.error
    assert launch.outcome.state is RunState.SUCCEEDED, (launch.told, launch.output)
    assert (workdir / "results" / "sum.txt").read_text() == "113000000"
    assert any(line.startswith("brought out to results: 1 file") for line in launch.told)


def test_keys_are_gone_with_their_pod(yard: Yard) -> None:
    keys = yard.project.parent / "state" / "runctl" / "runpod" / "keys"
    launch = yard.run("print('trained')")
    launch.check_that_nothing_is_left()
    assert not list(keys.glob(f"{launch.run_id}-*"))
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
