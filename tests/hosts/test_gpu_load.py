"""How busy GPUs are, as a driver's library tells it."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from runctl.hosts import gpus
from runctl.hosts.gpus import GpuLoad


class Driver:
    """A driver's library with GPUs that are so busy, in per cent; None for one that does not tell."""

    def __init__(self, *busy: int | None) -> None:
        self._busy = busy

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self._busy)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
        handle._obj.value = index + 1
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle: ctypes.c_void_p, found: Any) -> int:
        assert handle.value is not None
        busy = self._busy[handle.value - 1]
        if busy is None:
            return 3  # NVML_ERROR_NOT_SUPPORTED
        found._obj.gpu = busy
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, found: Any) -> int:
        assert handle.value is not None
        found._obj.total, found._obj.used = 80 << 30, (handle.value * 20) << 30
        return 0


@pytest.fixture(autouse=True)
def no_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_amd", lambda: 0)


def driven(monkeypatch: pytest.MonkeyPatch, *busy: int | None) -> GpuLoad:
    monkeypatch.setattr(gpus.ctypes, "CDLL", lambda name: Driver(*busy))
    return GpuLoad()


@pytest.mark.parametrize(("busy", "expected"), [((), 0.0), ((0, 0), 0.0), ((3, 97, 0), 0.97)])
def test_the_busiest_counts(monkeypatch: pytest.MonkeyPatch, busy: tuple[int, ...], expected: float) -> None:
    assert driven(monkeypatch, *busy).busiest() == expected


def test_shares_are_of_all_gpus_together(monkeypatch: pytest.MonkeyPatch) -> None:
    load = driven(monkeypatch, 20, 60)
    assert (load.share(), load.memory_share()) == (0.4, (20 + 40) / 160)
    none = driven(monkeypatch)
    assert (none.share(), none.memory_share()) == (None, None)


def test_one_that_does_not_tell_leaves_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    load = driven(monkeypatch, 50, None)
    assert (load.busiest(), load.share()) == (None, None)


def test_without_a_driver_there_is_nothing_to_be_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(gpus.ctypes, "CDLL", missing)
    assert GpuLoad().busiest() == 0.0
    monkeypatch.setattr(gpus, "_amd", lambda: 1)
    assert GpuLoad().busiest() is None
