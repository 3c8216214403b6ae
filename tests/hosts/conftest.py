"""Fixtures of the tests of hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rented import Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A rented host; whatever is left of it is ended after the test."""
    host = Host(tmp_path)
    yield host
    host.clean_up()
