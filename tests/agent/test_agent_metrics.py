"""Metrics: what counts, what is passed over, and where it ends up."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
from real_launches import Launcher

from runctl.agent.metrics import MetricsLog
from runctl.agent.troubles import Troubles
from runctl.errors import StorageError
from runctl.hostdir import HostDir
from runctl.storage import Stream, open_store
from runctl.training.log import log


class Metrics:
    """A metrics log over a folder, and what it has kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host_dir = HostDir(path / "host")
        self.host_dir.path.mkdir()
        self.troubles = Troubles()
        stream = open_store(str(path)).stream("metrics.jsonl")
        self.log = MetricsLog(stream, 1, self.host_dir, self.troubles)

    def kept(self) -> list[dict[str, Any]]:
        lines = (self.path / "metrics.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        return [{key: value for key, value in entry.items() if key not in ("at", "attempt")} for entry in entries]


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics(tmp_path)


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (b"step=120 loss=0.31", {"step": 120, "loss": 0.31}),
        (b"step: 120, loss: 3.1e-1", {"step": 120, "loss": 0.31}),
        (b"[epoch=3 acc=.5]", {"epoch": 3, "acc": 0.5}),
        (b"12:30:01 INFO step=7 val/loss=-2", {"step": 7, "val/loss": -2}),
        (b'{"step": 5, "loss": 0.5, "note": "x", "done": true}', {"step": 5, "loss": 0.5}),
        (b"step=1 loss=nan grad=inf", {"step": 1, "loss": "nan", "grad": "inf"}),
        (b'{"step": 2, "loss": NaN, "grad": -Infinity}', {"step": 2, "loss": "nan", "grad": "-inf"}),
        (b"\xff\xfe step=4 loss=1 \xff", {"step": 4, "loss": 1}),
    ],
)
def test_a_line_with_a_step_or_an_epoch_counts(metrics: Metrics, line: bytes, entry: dict[str, Any]) -> None:
    metrics.log.feed(b"something before\n" + line + b"\n")
    assert metrics.kept() == [entry]


@pytest.mark.parametrize(
    "line",
    [
        b"loss=0.3",
        b"this step is hard",
        b"step=one",
        b"steps=3",
        b'{"step": ',
        b'{"step": [1]}',
        b'[{"step": 1}]',
        b"step=nan loss=1",
        b'{"step": Infinity}',
        b"step=" + b"9" * 5000,
        b'{"step": 1' + b"0" * 400 + b"}",
        b'{"step": ' + b"[" * 100_000,
        b"step=1.2.3",
        b"step=\xff",
    ],
    ids=lambda line: repr(line[:20]),
)
def test_a_line_that_only_looks_like_metrics_is_passed_over(metrics: Metrics, line: bytes) -> None:
    metrics.log.feed(line + b"\nstep=1 loss=2\n")
    assert metrics.kept() == [{"step": 1, "loss": 2}]
    assert metrics.log.latest == {"loss": 2}
    assert metrics.troubles.first is None


def test_a_progress_bar_with_steps_counts_at_each_of_its_states(metrics: Metrics) -> None:
    metrics.log.feed(b"\rstep=1 loss=3\rstep=2 loss=2\r")
    assert [entry["step"] for entry in metrics.kept()] == [1, 2]


def test_a_torn_line_in_the_file_of_runctl_log_is_passed_over(metrics: Metrics) -> None:
    metrics.host_dir.metrics.write_bytes(
        b'{"step": 1, "lo{"step": 2, "loss": 1.0}\n{"step": 3, "loss": 1.0}\n{"step": 4'
    )
    metrics.log.poll()
    assert metrics.log.step == 3
    with metrics.host_dir.metrics.open("ab") as file:
        file.write(b', "loss": 0.5}\n')
    metrics.log.poll()
    assert [entry["step"] for entry in metrics.kept()] == [3, 4]


def test_a_full_disk_ends_no_training_for_a_metric_and_costs_no_later_line(
    metrics: Metrics, capsys: pytest.CaptureFixture[str]
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    metrics.host_dir.log_metrics({"step": 1})
    size_bytes = metrics.host_dir.metrics.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes + 20, before[1]))  # stands in for a disk with so much left
    try:
        for step in (2, 3, 4):
            metrics.host_dir.log_metrics({"step": step})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for step in (5, 6):
        metrics.host_dir.log_metrics({"step": step})
    metrics.log.poll()
    assert metrics.log.step == 6
    entries = [json.loads(line) for line in metrics.host_dir.metrics.read_text().splitlines() if line.endswith("}")]
    assert [entry["step"] for entry in entries] == [1, 5, 6]
    assert capsys.readouterr().err.count("metrics cannot be written") == 1


def test_metrics_that_cannot_be_kept_are_a_trouble_and_no_error(tmp_path: Path) -> None:
    class Full(Stream):
        def append(self, data: bytes) -> None:
            raise StorageError("no space")

        def flush(self) -> None:
            raise StorageError("no space")

        def close(self) -> None:
            raise StorageError("no space")

    troubles = Troubles()
    log = MetricsLog(Full(), 1, HostDir(tmp_path), troubles)
    log.feed(b"step=3 loss=0.5\n")
    log.flush()
    log.close()
    assert log.step == 3 and log.latest == {"loss": 0.5}
    assert str(troubles.first) == "no space"


def test_runctl_log_refuses_what_has_no_place_and_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="step"):
        log(loss=1.0)
    with pytest.raises(TypeError, match="loss='low'"):
        log(step=1, loss="low")
    with pytest.raises(TypeError, match="done=True"):
        log(step=1, done=True)


def test_runctl_log_does_nothing_outside_of_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNCTL_HOST_DIR", raising=False)
    log(step=1, loss=0.5)


@pytest.mark.slow
def test_metrics_of_rank_zero_reach_the_run_directory_however_they_are_said(launcher: Launcher) -> None:
    code, launch = launcher.run(
        ranks=2,
        script="""
        import os, torch, runctl
        rank = int(os.environ["RANK"])
        print(f"step=1 loss={rank + 0.25}", flush=True)
        print('{"step": 2, "loss": %s}' % (rank + 0.5), flush=True)
        runctl.log(step=3, loss=torch.tensor(rank + 0.75), bad=float("nan"))
        """,
    )
    assert code == 0, launch.err
    entries = sorted(launch.lines("metrics.jsonl"), key=lambda entry: entry["step"])
    assert [(e["step"], e["loss"], e["attempt"]) for e in entries] == [(1, 0.25, 1), (2, 0.5, 1), (3, 0.75, 1)]
    assert entries[2]["bad"] == "nan"
    status = launch.json("status.json")
    assert status["step"] == 3 and status["metrics"]["loss"] == 0.75
    assert launch.json("outcome.json")["step"] == 3
    assert launch.json("heartbeat.json")["attempt"] == 1
    assert [event["event"] for event in launch.lines("events.jsonl")] == [
        "submitted", "attempt_started", "attempt_ended", "run_ended",
    ]  # fmt: skip
