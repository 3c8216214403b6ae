"""The empty volume for everything of runctl's: found among disks that must not be touched, and mounted once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runctl.platforms.aws.start import script

#: Name, type, size in bytes, parts below it, what blkid finds on it: a root disk, one that is in use, one of another
#: size, and the one.
DISKS = """\
/dev/zram0 disk 4294967296 0 swap
/dev/nvme0n1 disk 107374182400 2 -
/dev/nvme1n1 disk 107374182400 0 ext4
/dev/nvme2n1 disk 950000000000 0 -
/dev/sr0 rom 107374182400 0 -
"""
EMPTY = "/dev/nvme3n1 disk 107374182400 0 -\n"
PROGRAMS = {
    "lsblk": """
case $1 in
  -dnbpo) awk '{print $1, $2, $3}' "$DISKS" ;;
  *) awk -v device="$3" '$1 == device {print $1; for (i = 0; i < $4; i++) print $1 "p" i}' "$DISKS" ;;
esac""",
    "blkid": """awk -v device="$1" '$1 == device && $5 != "-" {print $5; found = 1} END {exit !found}' "$DISKS" """,
    "mountpoint": """test -e "$DONE.mounted" """,
    "mkfs.ext4": """echo mkfs.ext4 "$@" >> "$DONE" """,
    "mkdir": """echo mkdir "$@" >> "$DONE" """,
    "mount": """echo mount "$@" >> "$DONE"; touch "$DONE.mounted" """,
    # The rest of the script is not meant here.
    "python3": """echo started >> "$DONE" """,
}


class Host:
    def __init__(self, folder: Path) -> None:
        self.disks = folder / "disks"
        self._done = folder / "done"
        self._bin = folder / "bin"
        self._bin.mkdir()
        for name, text in PROGRAMS.items():
            (self._bin / name).write_text(f"#!/bin/sh\n{text.strip()}\n")
            (self._bin / name).chmod(0o755)

    def start(self, gib: int | None, **env: str) -> subprocess.CompletedProcess[str]:
        text = script("run", 1, [("keeper.py", "0", "http://127.0.0.1:9/")], data_volume_gib=gib)
        return subprocess.run(
            ["sh", "-c", text], capture_output=True, text=True, check=False,
            env={"PATH": f"{self._bin}:{os.environ['PATH']}", "DISKS": str(self.disks), "DONE": str(self._done), **env},
        )  # fmt: skip

    @property
    def done(self) -> list[str]:
        return [line for line in self._done.read_text().splitlines() if line != "started"]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_empty_volume_of_its_size_is_mounted_and_only_once(host: Host) -> None:
    host.disks.write_text(DISKS + EMPTY)
    for _ in range(2):
        assert host.start(100).returncode == 0
    assert host.done == [
        "mkfs.ext4 -q /dev/nvme3n1",
        "mkdir -p /var/lib/runctl",
        "mount -o noatime /dev/nvme3n1 /var/lib/runctl",
    ]


def test_without_it_nothing_is_touched_and_nothing_started(host: Host) -> None:
    host.disks.write_text(DISKS)
    ended = host.start(100)
    assert (ended.returncode, ended.stderr) == (1, "runctl: no empty volume of 100 GiB\n")
    assert not host._done.exists()


@pytest.mark.parametrize(("gib", "env"), [(None, {}), (100, {"RUNCTL_HOST_ROOT": "/nowhere"})], ids=["none", "drill"])
def test_where_none_was_asked_for_or_in_the_drill_no_disk_is_looked_at(host: Host, gib: int | None, env) -> None:
    host.disks.write_text(DISKS + EMPTY)
    assert host.start(gib, **env).returncode == 0
    assert host.done == []
