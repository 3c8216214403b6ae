"""An sshd for the drill's pods: found or fetched, and said in one line if there is none to be had."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runctl.drill.runpod import sshd
from runctl.drill.runpod.cloud import RunpodCloud
from runctl.errors import PlatformError


def tools(folder: Path, **scripts: str) -> str:
    """A PATH with these programs alone."""
    for name, text in {**scripts}.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(folder)


def test_without_packages_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", tools(tmp_path))
    with pytest.raises(PlatformError, match="need sshd, and there is neither one nor apt-get; install OpenSSH") as told:
        sshd.fetched(tmp_path / "made")
    assert "\n" not in str(told.value)


def test_a_download_that_fails_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    said = 'echo "E: no network" >&2; exit 100'
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", **{"apt-get": said, "dpkg": "exit 1"}))
    with pytest.raises(PlatformError, match="apt-get -o ended with 100: E: no network; install OpenSSH's server"):
        sshd.fetched(tmp_path / "cache" / "sshd")
    assert list((tmp_path / "cache").iterdir()) == []


def test_one_that_is_there_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = sshd.ready()
    monkeypatch.setenv("PATH", os.devnull)
    assert sshd.ready() == found
    assert found.binary.exists()
    assert Path(found.sftp_server).exists()


def test_a_cloud_that_finds_none_says_so_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from pathlib import Path\nfrom runctl.drill.runpod import sshd\n"
        "sshd._SYSTEM = '/nowhere'\nsshd._MADE_AHEAD = Path('/nowhere')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", tools(tmp_path))
    with pytest.raises(PlatformError, match="need sshd, and there is neither one nor apt-get"), RunpodCloud():
        pass
