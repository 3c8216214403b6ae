"""What a launch begins from: another run's checkpoint, one that was carried elsewhere, or the one before a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_launches import Launch, Launcher

from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.remote import RemoteCatalog
from runctl.rundir import RunDir
from runctl.storage import open_store

SCRIPT = """
    import os, sys, pathlib, time
    import torch
    from torch import nn
    import runctl

    class Count:
        done = 0
        def state_dict(self): return {"done": self.done}
        def load_state_dict(self, state):
            here = pathlib.Path("refused")
            if here.exists() and (here.read_text() == "all" or int(here.read_text()) == state["done"]):
                raise KeyError(f"count of {state['done']}")
            self.done = state["done"]

    rank = int(os.environ.get("RANK", 0))
    count, model = Count(), nn.Linear(2, 2)
    ck = runctl.attach(model=model, count=count)
    if rank == 0:
        print("begins at", ck.step, count.done, flush=True)
    for step in ck.steps(int(sys.argv[1].split("=")[1])):
        while ck.saver is not None and ck.saver.busy:  # no save is put off
            ck.saver.poll(), time.sleep(0.01)
        count.done += 1
        ck.log(loss=step)
    """


def train(launcher: Launcher, run_id: str, steps: int, *words: str, ranks: int = 0) -> tuple[int, Launch]:
    given = ("checkpoint.every=10steps", f"args.steps={steps}", "run.changed=accept", *words)
    return launcher.run(*given, script=SCRIPT, run_id=run_id, ranks=ranks)


def steps_of(launch: Launch) -> list[int]:
    return Catalog(launch.run_dir / "checkpoints").steps()


@pytest.mark.slow
def test_a_new_run_begins_from_another_run(launcher: Launcher) -> None:
    _, first = train(launcher, "first", 30)
    code, second = train(launcher, "second", 50, "checkpoint.resume=first")
    assert code == 0, second.err
    assert "begins at 30 30" in second.out
    assert second.json("outcome.json")["resumed_from_step"] == 30
    assert steps_of(first) == [10, 20, 30], "nothing changes where it began"


@pytest.mark.soak
def test_one_checkpoint_may_be_named_by_its_path(launcher: Launcher) -> None:
    train(launcher, "first", 30)
    code, second = train(launcher, "second", 40, "checkpoint.resume=runs/first/checkpoints/step-000020")
    assert code == 0, second.err
    assert "begins at 20 20" in second.out


@pytest.mark.soak
def test_a_run_that_has_checkpoints_goes_on_from_its_own(launcher: Launcher) -> None:
    train(launcher, "first", 30)
    train(launcher, "second", 40, "checkpoint.resume=first")
    code, again = train(launcher, "second", 60, "checkpoint.resume=first", "run.changed=accept")
    assert code == 0, again.err
    # It had finished with 40 steps; the same launch again would only say so.
    assert "has finished" in again.err


def test_nothing_to_begin_from_is_an_error_and_never_step_zero(launcher: Launcher, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code, launch = train(launcher, "new", 20, f"checkpoint.resume={empty}")
    assert code != 0
    assert f"checkpoint.resume={empty}: there is no checkpoint" in launch.err
    assert "begins at" not in launch.out


@pytest.mark.soak
def test_a_corrupt_checkpoint_of_another_run_stays_as_it_is(launcher: Launcher) -> None:
    _, first = train(launcher, "first", 30)
    data = first.run_dir / "checkpoints" / "step-000030" / "data.pt"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    code, second = train(launcher, "second", 40, "checkpoint.resume=first")
    assert code == 0, second.err
    assert "begins at 20 20" in second.out
    assert "its bytes are not those that were written" in second.err
    assert steps_of(first) == [10, 20, 30]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [0, pytest.param(2, marks=pytest.mark.soak)])
def test_a_checkpoint_that_does_not_load_is_passed_over(launcher: Launcher, ranks: int) -> None:
    train(launcher, "one", 30, "checkpoint.resume=never")
    (launcher.project / "refused").write_text("30")
    (launcher.project / "runs" / "one" / "attempts" / "1.json").unlink()  # as if it had not come to its end
    code, again = train(launcher, "one", 40, ranks=ranks)
    assert code == 0, again.err
    assert "step-000030 verifies but does not load (KeyError: 'count of 30'); going back to the one before" in again.err
    assert "begins at 20 20" in again.out
    assert again.json("outcome.json")["resumed_from_step"] == 20
    assert steps_of(again) == [20, 30, 40], "the later 30 was saved anew"
    assert (again.run_dir / "checkpoints" / "superseded-by-a1" / "step-000030").is_dir()


@pytest.mark.slow
def test_if_none_loads_the_run_ends_with_an_error_and_all_are_kept(launcher: Launcher) -> None:
    train(launcher, "one", 30)
    (launcher.project / "runs" / "one" / "attempts" / "1.json").unlink()
    (launcher.project / "refused").write_text("all")
    code, again = train(launcher, "one", 40)
    assert code == 1, again.err
    reason = again.json("outcome.json")["reason"]
    assert "no checkpoint of this run loads" in reason
    assert all(f"step {step}: KeyError" in reason for step in (10, 20, 30))
    assert "begins at" not in again.out
    assert steps_of(again) == [10, 20, 30]

    (launcher.project / "refused").unlink()
    code, mended = train(launcher, "one", 40)
    assert code == 0, mended.err
    assert "begins at 30 30" in mended.out


@pytest.mark.slow
def test_checkpoints_are_carried_where_the_user_wants_them(launcher: Launcher, tmp_path: Path) -> None:
    code, launch = train(launcher, "one", 30, f"checkpoint.url={tmp_path / 'kept'}")
    assert code == 0, launch.err
    kept = RemoteCatalog(open_store(str(tmp_path / "kept" / "one")))
    assert kept.steps() == steps_of(launch) == [10, 20, 30] or kept.steps()[-1] == 30
    assert launch.json("outcome.json")["checkpoints"][-1] == "step-000030"


@pytest.mark.soak
def test_another_machine_finds_them_there(launcher: Launcher, s3) -> None:
    url = f"s3://{s3.bucket()}/kept"
    code, launch = train(launcher, "one", 30, f"checkpoint.url={url}")
    assert code == 0, launch.err
    launch.run_dir.rename(launcher.project / "gone")
    code, again = train(launcher, "one", 50, f"checkpoint.url={url}")
    assert code == 0, again.err
    assert "begins at 30 30" in again.out
    assert RunDir(str(again.run_dir)).attempts()[0].resumed_from_step == 30
    code, other = train(launcher, "other", 60, f"checkpoint.resume={url}/one")
    assert code == 0, other.err
    assert "begins at 50 50" in other.out
