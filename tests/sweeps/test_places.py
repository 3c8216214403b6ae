"""What jobs write besides their run directories: no job over another's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest

from runctl.composed import Composed
from runctl.errors import ConfigError
from runctl.spec import Data, LaunchSpec, Program, RunIdentity, Transfer
from runctl.sweeps.places import Places, PlaceTaken

WRITES = """
import argparse
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("--x")
parser.add_argument("--out", default="out")
options = parser.parse_args()
Path(options.out).mkdir(exist_ok=True)
Path(options.out, f"of-{options.x}.txt").write_text(options.x)
"""
SAME = "data.outputs=[{from: out, to: results}]"


def results(project) -> list[str]:
    return sorted(str(path.relative_to(project.folder)) for path in project.folder.glob("results*/*"))


def suggested(error: ConfigError) -> list[str]:
    """The words that an error says to type instead."""
    return shlex.split(re.search(r"as in (.*?)(, or sweep|$)", str(error))[1])


@pytest.mark.parametrize(("at_once", "why"), [
    ([], "every job would bring its out to results, over that of the others"),
    (["sweep.max_parallel=2"], "jobs that run at once would write the same out"),
])  # fmt: skip
def test_outputs_that_would_come_to_the_same_place_are_refused_before_anything_runs(project, at_once, why) -> None:
    project.script(WRITES)
    with pytest.raises(ConfigError, match=why) as refused:
        project.sweep("args.x=1,2", SAME, *at_once)
    assert not project.runs.exists() and not (project.folder / "out").exists()
    done = project.sweep("args.x=1,2", *at_once, *suggested(refused.value))
    assert done.code == 0, done.err
    assert {"results-1/of-1.txt", "results-2/of-2.txt"} <= set(results(project))
    if at_once:
        assert len(results(project)) == 2, "and each only its own"


def test_jobs_that_are_said_to_run_one_by_one_on_this_machine_may_add_up_in_one_place(project) -> None:
    project.script(WRITES)
    assert project.sweep("args.x=1,2", SAME, "sweep.max_parallel=1").code == 0
    assert results(project) == ["results/of-1.txt", "results/of-2.txt"]


@pytest.fixture
def job() -> Callable[..., Composed]:
    def made(run_id: str, source: str, target: str, *swept: str) -> Composed:
        spec = LaunchSpec(RunIdentity(run_id, "a", "runs"), Program("train.py", None))
        spec = replace(spec, data=Data(outputs=(Transfer(source, target),)))
        return Composed(None, spec, None, str, None, swept)  # type: ignore[arg-type]

    return made


def test_on_hosts_of_their_own_jobs_may_write_the_same_folder_but_not_bring_it_to_the_same_place(job) -> None:
    places = Places(rented=True, at_once=True, one_by_one=True)
    places.take(job("a", "out", "s3://b/a"))
    places.take(job("b", "out", "s3://b/b/"))
    places.take(job("b", "out", "s3://b/b"))
    with pytest.raises(PlaceTaken) as refused:
        places.take(job("c", "out", "s3://b/b", "args.lr=1", "+env.A=2", "trainer=ddp"))
    told = 'data.outputs=[{from: out, to: "s3://b/b-${args.lr}-${env.A}-${hydra:runtime.choices.trainer}"}]'
    assert suggested(refused.value) == [told]


def test_one_path_written_in_two_ways_is_one_place(job) -> None:
    places = Places(rented=False, at_once=False, one_by_one=False)
    places.take(job("a", "out", "results"))
    with pytest.raises(PlaceTaken):
        places.take(job("b", "out", "./results/"))
