"""Milestones of an attempt: what plugins and the events are told, and how little a notification may hold."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from web_inbox import Inbox

from runctl.agent import milestones
from runctl.agent.limits import Budget
from runctl.agent.milestones import Milestones
from runctl.agent.order import Order
from runctl.agent.troubles import Troubles
from runctl.agent.verdict import Verdict
from runctl.errors import ConfigError, MissingExtra
from runctl.hooks import Hooks
from runctl.outcome import Attempt
from runctl.plugins import notify
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Plan, Program, RunIdentity, RunState

PLUGIN = """
from pathlib import Path
def runctl_milestone(kind, about, secrets):
    with Path({told!r}).open("a") as file:
        print(kind, about.get("step"), about.get("share"), sorted(secrets), file=file)
"""
DONE = Verdict(RunState.SUCCEEDED, 0, "succeeded")


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    inbox.shut()


class Noticed:
    """An attempt's milestones, a plugin of the project's that writes them down, and the events."""

    def __init__(self, folder: Path, order: dict[str, Any], **spec: Any) -> None:
        self.folder = folder
        self.told_in = folder / "told"
        (folder / "runctl_plugins.py").write_text(PLUGIN.format(told=str(self.told_in)))
        self.spec = LaunchSpec(RunIdentity("digits", "digits", "runs"), Program("train.py", None), **spec)
        self.order = Order("runs/digits", 2, "/p", "aws", market="spot", attached=False, **order)
        self.rundir = RunDir(str(folder / "runs" / "digits"))
        self.said: list[str] = []
        self.events = self.rundir.event_stream("a2-n0")
        self.found = Milestones(
            self.order, self.spec, Attempt(2, "aws", "i-1", "spot"), events=self.events, troubles=Troubles(),
            say=self.said.append,
        )  # fmt: skip

    def begin(self, secrets: dict[str, str] | None = None) -> Milestones:
        self.found.begin(Hooks.load(self.folder), secrets or {})
        return self.found

    def told(self) -> list[str]:
        """What the plugin was told by the end."""
        self.found.end(DONE, {"step": 7})
        self.found.wait(DONE)
        return [line.partition(" [")[0] for line in self.told_in.read_text().splitlines()]

    def noted(self) -> list[tuple[str, Any]]:
        return [(one["event"], one.get("step") or one.get("share")) for one in self.rundir.events()]


def test_a_first_attempt_starts_steps_and_finishes(tmp_path: Path) -> None:
    noticed = Noticed(tmp_path, {})
    found = noticed.begin()
    found.training({"checkpoints": []})
    for progress in ({"step": None}, {"step": 3}, {"step": 5, "checkpoints": [4]}, {"step": 6, "checkpoints": [4]}):
        found.look(progress)
    assert noticed.told() == ["started None None", "first_step 3 None", "finished 7 None"]
    assert noticed.noted() == [("checkpoint", 4)]


def test_one_that_resumes_says_so_and_makes_no_first_step(tmp_path: Path) -> None:
    noticed = Noticed(tmp_path, {})
    found = noticed.begin()
    found.training({"checkpoints": [40, 80], "resumed_from_step": 80})
    found.look({"step": 81, "checkpoints": [40, 80]})
    assert noticed.told() == ["resumed 80 None", "finished 7 None"]
    assert noticed.noted() == []


def test_a_budget_is_told_by_shares_and_each_once_over_all_attempts(tmp_path: Path) -> None:
    budget = Budget(2.0, 1.1, 1.0, 10_000.0)
    noticed = Noticed(tmp_path, {})
    found = noticed.begin()
    for hours in (0.05, 0.1, 0.2, 0.5, 0.6, 1.1, 1.2):
        if (alert := budget.alert(10_000.0 + hours * 3600)) is not None:
            found.spent(alert)
    assert [line for line in noticed.told() if "budget" in line] == ["budget None 0.8", "budget None 1.0"]
    assert [share for event, share in noticed.noted() if event == "budget"] == [0.8, 1.0]
    assert noticed.said[0] == "80% of limits.max_usd=2 are spent: 1.60 USD"


def test_a_stall_is_told_once_and_never_after_the_ranks_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(milestones.time, "monotonic", lambda: clock[0])
    noticed = Noticed(tmp_path, {})
    found = noticed.begin()
    found.training({})
    for at, step in ((0, 1), (1, 2), (2, 3), (60, 3), (70, 3), (80, 3), (90, 4), (160, 4)):
        clock[0] = float(at)
        found.look({"step": step})
    found.trained()
    clock[0] = 1000.0
    found.look({"step": 4})
    monkeypatch.undo()
    assert [line for line in noticed.told() if "stalled" in line] == ["stalled 3 None", "stalled 4 None"]


def test_people_are_told_over_http_what_when_and_where(tmp_path: Path, inbox: Inbox) -> None:
    noticed = Noticed(tmp_path, {}, secrets={"CHAT": "env:CHAT"}, notify=("CHAT",))
    found = noticed.begin({"CHAT": inbox.address})
    found.training({"resumed_from_step": 80})
    verdict = Verdict(RunState.INTERRUPTED, 71, "interrupted: AWS takes the instance back at 12:00:00 UTC")
    found.end(verdict, {"step": 120, "metrics": {"loss": 0.123456}})
    found.wait(Verdict(RunState.FAILED, 1, ""))
    assert [one["title"] for one in inbox.taken] == [
        "digits goes on from a checkpoint", "digits was interrupted",
    ]  # fmt: skip
    assert inbox.taken[1]["message"] == (
        "interrupted: AWS takes the instance back at 12:00:00 UTC\nstep 120 loss=0.1235\nattempt 2 on aws spot i-1"
    )
    assert (inbox.taken[1]["type"], noticed.said) == ("warning", [])


def test_who_does_not_answer_holds_nothing_for_long(
    tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(milestones, "_LAST_S", 0.5)
    inbox.hangs = True
    noticed = Noticed(tmp_path, {}, secrets={"CHAT": "env:CHAT"}, notify=("CHAT",))
    found = noticed.begin({"CHAT": inbox.address})
    began = time.monotonic()
    found.training({})
    found.look({"step": 1})
    assert time.monotonic() - began < 3
    found.end(DONE, {"step": 1})
    found.wait(DONE)
    assert time.monotonic() - began < 8
    assert noticed.said == ["not everybody could be told within 0.5 s how the run ended"]


def test_who_refuses_is_asked_again_and_then_only_named(
    tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notify, "_PAUSES_S", (0.01, 0.01))
    inbox.status = 500
    spec = LaunchSpec(RunIdentity("digits", "digits", "runs"), Program("t.py", None), notify=("CHAT",))
    notify.runctl_milestone(spec, 1, "failed", {}, {"CHAT": inbox.address, "OTHER": "nonsense"})
    assert "CHAT did not take the news that the run has failed" in caplog.text
    assert "OTHER: its value is no address that apprise knows" in caplog.text
    assert "a-secret-path" not in caplog.text and "nonsense" not in caplog.text


def plan(platform: str) -> Plan:
    return Plan("digits", 1, platform, (), {}, 1, 1, ".", "runs/digits")


def test_addresses_are_looked_at_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = LaunchSpec(
        RunIdentity("digits", "digits", "runs"),
        Program("t.py", None),
        secrets={"CHAT": "env:MY_CHAT"},
        notify=("CHAT",),
    )
    with pytest.raises(ConfigError, match="MY_CHAT is not set in the environment"):
        notify.runctl_before_submit(spec, plan("aws"))
    monkeypatch.setenv("MY_CHAT", "a-secret-that-is-no-url")
    with pytest.raises(ConfigError, match=r"secrets.CHAT=env:MY_CHAT: its value is no address") as found:
        notify.runctl_before_submit(spec, plan("aws"))
    assert "a-secret" not in str(found.value)
    monkeypatch.setenv("MY_CHAT", "json://127.0.0.1:1/x")
    notify.runctl_before_submit(spec, plan("local"))
    monkeypatch.setattr(notify.importlib.util, "find_spec", lambda name: None)
    notify.runctl_before_submit(spec, plan("aws"))
    with pytest.raises(MissingExtra, match=r"runctl\[notify\]"):
        notify.runctl_before_submit(spec, plan("local"))
