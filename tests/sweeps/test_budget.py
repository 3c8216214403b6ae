"""`sweep.max_usd`: what the sweep has cost, and what does not start any more."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runctl.outcome import Attempt
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Plan, Program, RunHandle, RunIdentity, RunState
from runctl.sweeps import budget
from runctl.sweeps.book import Book
from runctl.sweeps.job import Job

#: Prices that this machine has not.
PRICED = "def runctl_attempt_ended(attempt):\n    attempt.cost_usd = 1.0\n"


def test_once_it_is_spent_no_new_job_starts_and_the_same_command_starts_none_either(project) -> None:
    project.script(PRICED, "runctl_plugins.py")
    words = ("args.x=1,2,3,4", "sweep.max_usd=1.5", "-p", "no:cost")
    done = project.sweep(*words)
    assert done.code == 124
    assert [job["state"] for job in done.jobs] == ["succeeded", "succeeded", "not started", "not started"]
    assert "sweep.max_usd=1.5: 2.00 USD are spent" in done.err
    assert project.sweep(*words).code == 124
    assert project.done() == ["1", "2"]
    assert project.sweep("args.x=1,2,3,4", "sweep.max_usd=5", "-p", "no:cost").code == 0
    assert project.done() == ["1", "2", "3", "4"]


def test_what_still_runs_counts_up_to_now(tmp_path: Path) -> None:
    book = Book(LaunchSpec(RunIdentity("a", "sweep", str(tmp_path)), Program("train.py", None)), fresh=False)
    rundir = RunDir(str(tmp_path / "running"))
    lost = Attempt(1, "aws", "i-1", started_at=time.time() - 7200, ended_at=time.time() - 3600, cost_usd=0.5)
    lives = Attempt(2, "aws", "i-2", started_at=time.time() - 1800, price_usd_per_hour=2.0)
    for attempt in (lost, lives):
        rundir.write_attempt(attempt)
    jobs = [
        Job(1, {}, "running", rundir.url, state="running"),
        Job(2, {}, "ended", str(tmp_path / "ended"), state="succeeded", cost_usd=0.25),
        Job(3, {}, "waiting", str(tmp_path / "waiting")),
    ]
    assert budget.spent_usd(book, jobs) == pytest.approx(0.5 + 1.0 + 0.25, abs=0.01)


def test_a_job_costs_what_all_its_attempts_cost_though_one_was_never_put_down(tmp_path: Path) -> None:
    now = time.time()
    left = Attempt(1, "aws", "i-1", "spot", started_at=now - 7200, ended_at=now - 3600, price_usd_per_hour=5.0)
    told = Attempt(2, "aws", "i-2", "spot", started_at=now - 3600, ended_at=now, price_usd_per_hour=4.0, cost_usd=4.72)
    job = Job(1, {}, "one", str(tmp_path / "one"))
    job.note([left, told])
    assert job.cost_usd == pytest.approx(9.72)


def test_an_attempt_without_a_price_hides_the_cost_of_no_other(tmp_path: Path) -> None:
    rundir = RunDir(str(tmp_path / "one"))
    attempts = [Attempt(1, "odd", "h", "spot", started_at=1.0, ended_at=2.0), Attempt(2, "aws", "i", cost_usd=4.0)]
    for attempt in attempts:
        rundir.write_attempt(attempt)
    job = Job(1, {}, "one", rundir.url, state="succeeded")
    job.note(attempts)
    job.state = "succeeded"
    assert job.cost_usd is None, "what is shown is not known"
    assert budget.spent_usd(empty_book(tmp_path), [job]) == 4.0


def test_a_host_that_is_brought_up_counts_from_when_it_was_granted(tmp_path: Path) -> None:
    rundir, now = RunDir(str(tmp_path / "one")), time.time()
    job = Job(1, {}, "one", rundir.url, state="running")
    plan = Plan("one", 1, "aws", (), {}, None, 1, "", rundir.url)
    rundir.write_submission(plan, None)
    assert budget.spent_usd(empty_book(tmp_path), [job]) == 0.0
    where = {"instance": "i-1", "launched_at": now - 1800, "price_usd_per_hour": 2.0}
    rundir.write_submission(plan, RunHandle("aws", "one", 1, where))
    assert budget.spent_usd(empty_book(tmp_path), [job]) == pytest.approx(1.0, abs=0.01)
    rundir.write_attempt(Attempt(1, "aws", "i-1", "spot", state=RunState.RUNNING, started_at=now - 900,
                                 price_usd_per_hour=2.0))  # fmt: skip
    assert budget.spent_usd(empty_book(tmp_path), [job]) == pytest.approx(0.5, abs=0.01), "once, as its agent has it"
    rundir.write_attempt(Attempt(1, "aws", "i-1", "spot", state=RunState.INTERRUPTED, started_at=now - 900,
                                 ended_at=now, price_usd_per_hour=2.0))  # fmt: skip
    rundir.write_submission(replace(plan, attempt=2), RunHandle("aws", "one", 2, where))
    assert budget.spent_usd(empty_book(tmp_path), [job]) == pytest.approx(1.5, abs=0.01)


def empty_book(folder: Path) -> Book:
    return Book(LaunchSpec(RunIdentity("a", "none", str(folder)), Program("train.py", None)), fresh=False)


def test_what_an_interrupted_job_cost_is_not_forgotten_while_it_waits(tmp_path: Path) -> None:
    spec = LaunchSpec(RunIdentity("a", "sweep", str(tmp_path)), Program("train.py", None))
    Book(spec, fresh=False).keep([Job(1, {}, "lost", "", state="interrupted", cost_usd=5.0, code="before")])
    again = Book(spec, fresh=False)
    job = Job(1, {}, "lost", "", code=again.code_of("lost"), cost_usd=again.cost_of("lost"))
    again.keep([job])
    assert budget.spent_usd(again, [job]) == 5.0
    assert budget.spent_usd(Book(spec, fresh=False), []) == 5.0, "nor by a command that was killed while it waited"
    assert Book(spec, fresh=False).code_of("lost") == "before"


def test_a_book_in_object_storage_goes_from_one_process_to_another() -> None:
    book = Book(LaunchSpec(RunIdentity("a", "sweep", "memory://books"), Program("train.py", None)), fresh=False)
    book.keep([Job(1, {}, "one", "", state="succeeded", cost_usd=1.0)])
    pickle.loads(pickle.dumps(book)).keep([Job(2, {}, "two", "", state="succeeded", cost_usd=2.0)])
    assert budget.spent_usd(Book(LaunchSpec(RunIdentity("b", "sweep", "memory://books"), Program("t.py", None)),
                                 fresh=False), []) == 3.0  # fmt: skip
