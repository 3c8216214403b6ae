"""Fixtures of the agent's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detached import Detached
from real_launches import Launcher


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """Starts launches in a project of their own; whatever is left of them is ended after the test."""
    project = tmp_path / "project"
    project.mkdir()
    # Not below pytest's folder: data loaders bind sockets in it, and a socket's path ends at 108 characters.
    with tempfile.TemporaryDirectory(prefix="rt-", ignore_cleanup_errors=True) as scratch:
        launcher = Launcher(project, Path(scratch))
        yield launcher
        launcher.clean_up()


@pytest.fixture
def detached(s3: Any) -> Iterator[Detached]:
    """A run in a bucket, whose agents have no launcher beside them."""
    with tempfile.TemporaryDirectory(prefix="rt-", ignore_cleanup_errors=True) as folder:
        detached = Detached(Path(folder), f"s3://{s3.bucket()}/runs")
        yield detached
        detached.clean_up()
