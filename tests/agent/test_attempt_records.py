"""Around the ranks: lease, host directory, environment, and records that cannot be written."""

from __future__ import annotations

import contextlib
import json
import os
import resource
from pathlib import Path

import pytest
from real_launches import Launcher

from runctl.errors import RunctlError
from runctl.hostdir import HostDir
from runctl.outcome import Attempt
from runctl.rundir import RunDir

WAITING = "import time\nopen('ready', 'w')\ntime.sleep(60)"
SHOW_ENV = "import json, os\njson.dump(dict(os.environ), open('env-' + os.environ.get('RANK', '0'), 'w'))"


def env_of(launcher: Launcher, rank: int = 0) -> dict[str, str]:
    data: dict[str, str] = json.loads((launcher.project / f"env-{rank}").read_text())
    return data


@pytest.mark.slow
def test_a_run_that_lives_is_not_launched_again(launcher: Launcher) -> None:
    first = launcher.start(script=WAITING)
    first.ready("ready")
    err = first.err
    code, second = launcher.run("script=train.py", run_id=first.run_id)
    assert code == 2
    assert f"run {first.run_id} is alive: process {first.agent()}" in second.err
    assert "run.id" in second.err and "Traceback" not in second.err
    assert first.process.poll() is None and first.of_this_run(), err


@pytest.mark.parametrize("ranks", [0, 2])
def test_ranks_know_their_run(launcher: Launcher, ranks: int) -> None:
    code, launch = launcher.run(
        "env.COLOUR=blue", "trainer.env.SHAPE=round", "secrets.TOKEN=env:MY_TOKEN",
        ranks=ranks, script=SHOW_ENV, env={"MY_TOKEN": "s3cret"},
    )  # fmt: skip
    assert code == 0, launch.err
    for rank in range(ranks or 1):
        env = env_of(launcher, rank)
        assert (env["COLOUR"], env["SHAPE"], env["TOKEN"]) == ("blue", "round", "s3cret")
        assert (env["RUNCTL_RUN_ID"], env["RUNCTL_ATTEMPT"]) == (launch.run_id, "1")
        assert env["RUNCTL_RUN_DIR"] == str(launch.run_dir)
        assert env["RUNCTL_HOST_DIR"].startswith(str(launcher.scratch))
    kept = [path for path in launch.run_dir.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize("ranks", [pytest.param(0, marks=pytest.mark.soak), 2])
def test_a_secret_that_is_not_there_is_told_before_training(launcher: Launcher, ranks: int) -> None:
    code, launch = launcher.run("secrets.TOKEN=env:NOT_THERE", ranks=ranks, script="open('ran', 'w')")
    assert code == 2
    assert "secrets.TOKEN=env:NOT_THERE: NOT_THERE is not set" in launch.err
    assert "Traceback" not in launch.err
    assert not (launcher.project / "ran").exists()
    assert launch.host_dirs() == []


@pytest.mark.parametrize(
    ("words", "env", "expected"),
    [
        pytest.param([], {}, str(max(1, (os.cpu_count() or 1) // 2)), id="a share"),
        pytest.param([], {"OMP_NUM_THREADS": "3"}, "3", id="set around the launch", marks=pytest.mark.soak),
        pytest.param(["trainer.omp_threads=5"], {"OMP_NUM_THREADS": "3"}, "5", id="by the trainer"),
        pytest.param(["env.OMP_NUM_THREADS=7", "trainer.omp_threads=5"], {}, "7", id="by env", marks=pytest.mark.soak),
    ],
)
def test_ranks_share_the_cores_unless_told_otherwise(
    launcher: Launcher, words: list[str], env: dict[str, str | None], expected: str
) -> None:
    code, launch = launcher.run(*words, ranks=2, script=SHOW_ENV, env=env)
    assert code == 0, launch.err
    assert env_of(launcher, 1)["OMP_NUM_THREADS"] == expected


def test_a_plain_script_keeps_the_hosts_thread_settings(launcher: Launcher) -> None:
    assert launcher.run(script=SHOW_ENV)[0] == 0
    assert "OMP_NUM_THREADS" not in env_of(launcher)


@pytest.mark.parametrize(
    ("ranks", "script"),
    [
        pytest.param(0, "pass", id="plain, success"),
        pytest.param(0, "raise ValueError", id="plain, failure", marks=pytest.mark.soak),
        pytest.param(2, "pass", id="torchrun, success", marks=pytest.mark.soak),
        pytest.param(2, "raise ValueError", id="torchrun, failure"),
    ],
)
def test_nothing_stays_in_the_temporary_folder(launcher: Launcher, ranks: int, script: str) -> None:
    _, launch = launcher.run(ranks=ranks, script=script)
    assert launch.host_dirs() == []
    assert [path.name for path in launcher.scratch.iterdir() if path.name.startswith("torch")] == []


def test_what_a_killed_agent_left_goes_with_the_next_attempt(tmp_path: Path) -> None:
    left = HostDir(tmp_path / "base" / "run" / "a1")
    left.path.parent.parent.mkdir()
    left.create(1)
    fresh = HostDir(tmp_path / "base" / "run" / "a2")
    fresh.create(2)
    assert not left.path.exists() and fresh.pipe(1, "out").exists()
    assert fresh.path.parent.parent.stat().st_mode & 0o777 != 0
    fresh.remove()
    assert not fresh.path.parent.exists()


def test_runs_of_one_id_below_two_roots_share_no_host_directory(tmp_path: Path) -> None:
    here = HostDir.for_attempt("run", 1, "s3://mine/run")
    there = HostDir.for_attempt("run", 1, "s3://yours/run")
    again = HostDir.for_attempt("run", 2, "s3://mine/run")
    assert here.path.parent != there.path.parent
    assert here.path.parent == again.path.parent and here.path != again.path


def test_a_host_directory_is_private_and_an_impossible_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    host_dir = HostDir.for_attempt("run", 1, "runs/run")
    host_dir.create(1)
    assert (tmp_path / f"runctl-{os.getuid()}").stat().st_mode & 0o777 == 0o700
    host_dir.remove()
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(RunctlError, match="another user"):
        host_dir.create(1)
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunctlError, match="TMPDIR"):
        HostDir(tmp_path / "file" / "base" / "run" / "a1").create(1)


def test_a_log_that_cannot_be_written_stops_no_training_and_is_told_at_the_end(launcher: Launcher) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    code, launch = launcher.run(
        preexec_fn=small_files,
        stdout=-3,  # subprocess.DEVNULL: the limit holds for this file as well
        script="""
        for step in range(3000):
            print(f"step={step} loss=0.5 " + "x" * 200)
        raise ValueError("the verdict")
        """,
    )
    assert code == 1
    assert launch.json("attempts/1.json")["failure"]["message"] == "ValueError: the verdict"
    assert launch.json("status.json")["step"] == 2999
    assert "the records of this attempt are not whole: cannot write" in launch.err
    assert launch.err.count("File too large") == 1
    assert len(launch.log("r0")) == 100_000


@pytest.mark.parametrize(
    ("resumed", "trained", "counted"),
    [
        (2, 0, [(1, 1), (1, 2), (3, 3)]),
        # Killed before it knew what to begin from: it takes nothing away.
        (None, 0, [(1, 1), (1, 2), (3, 3)]),
        # It began anew at step 0, and did some of it.
        (None, 1, [(2, 1), (3, 3)]),
    ],
)
def test_metrics_count_up_to_the_step_from_which_a_later_attempt_went_on(
    tmp_path: Path, resumed: int | None, trained: int, counted: list[tuple[int, int]]
) -> None:
    rundir = RunDir(str(tmp_path / "one"))
    lines = [(1, 1), (1, 2), (1, 3), *[(2, step + 1) for step in range(trained)], (3, 3)]
    for number, step in ((1, None), (2, resumed), (3, 2)):
        rundir.write_attempt(Attempt(number, "local", "here", started_at=float(number), resumed_from_step=step))
    with contextlib.closing(rundir.metrics_stream("a")) as stream:
        for attempt, step in lines:
            stream.append(json.dumps({"attempt": attempt, "step": step}).encode() + b"\n")
    assert [(entry["attempt"], entry["step"]) for entry in rundir.metrics()] == counted


@pytest.mark.parametrize(
    ("words", "env", "expected"),
    [([], {}, ("tracked", "allow")), ([], {"WANDB_RUN_ID": "own", "WANDB_RESUME": "must"}, ("own", "must")),
     (["env.WANDB_RUN_ID=typed"], {}, ("typed", "allow"))],
    ids=["by the run", "the user's own", "typed"],
)  # fmt: skip
def test_an_experiment_tracker_goes_on_with_its_run(launcher: Launcher, words, env, expected) -> None:
    script = "import os; print(os.environ['WANDB_RUN_ID'], os.environ['WANDB_RESUME'])"
    code, launch = launcher.run(*words, script=script, run_id="tracked", env={"WANDB_RUN_ID": None, **env})
    assert code == 0, launch.err
    assert tuple(launch.out.split()) == expected
