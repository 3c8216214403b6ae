"""A RunPod on loopback for tests of renting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from renting import A5000, L4, Desk, desk


@pytest.fixture(scope="module")
def _desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk(tmp_path_factory.mktemp("runpod")) as made:
        yield made


@pytest.fixture
def runpod(_desk: Desk) -> Iterator[Desk]:
    yield _desk
    _desk.cloud.clear()
    for gpu in (A5000, L4):
        _desk.cloud.set_capacity(gpu)
    _desk.cloud.set_balance(100.0)
    for one in _desk.cloud.pods():
        if one["state"] != "terminated":
            _desk.cloud.kill(one["id"])
