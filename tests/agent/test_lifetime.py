"""An attempt that is given more time: its host first, then its own limit; without the host, nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runctl import extension
from runctl.agent.lifetime import Lifetime, with_disks
from runctl.agent.limits import LimitWatch
from runctl.agent.order import Order
from runctl.cost import Rates
from runctl.encoding import dumps
from runctl.extension import Extension
from runctl.rundir import RunDir
from runctl.spec import Limits


class Host:
    """A host whose `shutdown` notes how it was called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._words, self.program = folder / "words", folder / "bin" / "shutdown"
        self.program.parent.mkdir()
        self.refuse(0)
        monkeypatch.setenv("PATH", f"{self.program.parent}:{os.environ['PATH']}")

    def refuse(self, code: int) -> None:
        self.program.write_text(f'#!/bin/sh\necho "$@" >> {self._words}\necho no such luck >&2\nexit {code}\n')
        self.program.chmod(0o755)

    @property
    def shutdowns(self) -> list[str]:
        return self._words.read_text().splitlines() if self._words.exists() else []


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def lifetime(*, deadline: float | None) -> tuple[Lifetime, LimitWatch, Any]:
    order = Order("s3://b/run", 1, "/p", "aws", attached=False, deadline=deadline)
    watch = LimitWatch(Limits(max_time_s=3600.0), order, time.time(), (), print)
    control = SimpleNamespace(extension=None)
    return Lifetime(order, Limits(max_time_s=3600.0), watch, control), watch, control  # type: ignore[arg-type]


def test_the_hosts_shutdown_is_put_off_as_long_as_the_limit(host: Host) -> None:
    one, watch, control = lifetime(deadline=time.time() + 4000)
    assert one.hear() is None
    assert one.told()["max_time_s"] == 3600.0
    control.extension = Extension(1, 7200.0, time.time())
    assert one.hear() == {"event": "extended", "max_time_s": 7200.0}
    assert host.shutdowns == ["-P +127"]
    assert watch.max_time_s == one.told()["max_time_s"] == 7200.0
    assert one.told()["deadline"] == pytest.approx(time.time() + 7600, abs=5)
    assert one.hear() is None, "once is enough"
    control.extension = Extension(1, 10800.0, time.time())
    assert one.hear() is not None
    assert host.shutdowns[1:] == ["-P +187"], "from the deadline of the launch on"


def test_where_the_host_cannot_be_asked_the_limit_stays_too(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    host.refuse(1)
    deadline = time.time() + 4000
    one, watch, control = lifetime(deadline=deadline)
    control.extension = Extension(1, 7200.0, time.time())
    assert one.hear() == {"event": "not_extended", "max_time_s": 7200.0}
    assert (watch.max_time_s, one.told()["deadline"]) == (3600.0, deadline)
    assert "no such luck" in capfd.readouterr().err


def test_ones_own_machine_is_not_shut_down(host: Host) -> None:
    one, watch, control = lifetime(deadline=None)
    control.extension = Extension(1, 7200.0, time.time())
    assert one.hear() is not None
    assert (watch.max_time_s, host.shutdowns) == (7200.0, [])


def test_what_another_attempt_was_given_counts_no_more(tmp_path: Path) -> None:
    rundir = RunDir(str(tmp_path / "run"))
    assert extension.asked(rundir, 1) is None
    extension.ask(rundir, 1, 7200.0)
    first = extension.asked(rundir, 1)
    assert first is not None and first.max_time_s == 7200.0
    assert extension.asked(rundir, 2) is None


def test_a_host_costs_its_disks_too(tmp_path: Path) -> None:
    rundir = RunDir(str(tmp_path / "run"))
    order = Order(rundir.url, 1, "/p", "aws", attached=False, price_usd_per_hour=0.4)
    assert with_disks(order, rundir).price_usd_per_hour == 0.4, "as far as anybody was told"
    rundir.store.write("attempts/1.rates.json", dumps(Rates(disk_usd_per_hour=0.1)).encode())
    assert with_disks(order, rundir).price_usd_per_hour == 0.5
