"""Faults of the host itself: what a failed rank and the kernel say of a broken GPU, a lost network, a full disk."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

#: What CUDA, NCCL and the driver's tools say where no program is to blame. An illegal address or a failed assertion
#: on the device is the program's own, and so is a time-out of a collective.
_SAID = (
    (re.compile(r"uncorrectable (ECC|NVLink) error|ECC error encountered", re.I), "a GPU's memory is broken"),
    (re.compile(r"fallen off the bus|GPU is lost|CUDA error: (system not yet initialized|device unavailable)", re.I),
     "a GPU is lost"),
    (re.compile(r"ncclRemoteError|ncclSystemError|NET/(IB|Socket|OFI)\b.*(error|fail)|ibv_\w+ failed", re.I | re.S),
     "NCCL's network failed"),
)  # fmt: skip
#: The driver's numbers for what the hardware does by itself: docs.nvidia.com/deploy/xid-errors (memory that is broken,
#: links, off the bus, the GPU's own processor). 13, 31, 43 and 45 come of programs.
_XIDS = {48, 61, 62, 63, 64, 74, 79, 92, 94, 95, 110, 119, 120, 122, 136, 140, 143}
_XID = re.compile(r"NVRM: Xid \((PCI:)?([^)]*)\): (\d+)")
_KERNEL_LOG = Path("/dev/kmsg")
_NO_SPACE = os.strerror(errno.ENOSPC)
_READ_AT_MOST = 10_000


def host_fault(said: str, since: float, project: Path, kernel_log: Path = _KERNEL_LOG) -> str | None:
    """What of this host made a rank fail, or None if that was the program's own doing.

    Args:
        said: the failure's message and traceback.
        since: what the kernel said before is of no account (seconds since boot, `time.monotonic`).
        project: the folder that holds what the program itself may have written.
        kernel_log: where the kernel's messages are read.
    """
    if (xid := _xid(since, kernel_log)) is not None:
        return xid
    if _NO_SPACE in said:
        return _full_disk(project)
    return next((fault for pattern, fault in _SAID if pattern.search(said)), None)


def _xid(since: float, kernel_log: Path) -> str | None:
    """The driver's own word of a fault of the hardware, from the kernel's messages.

    Linux, Documentation/ABI/testing/dev-kmsg: each read gives one message, `priority,number,microseconds since
    boot,flags;text`; without the right to, none.
    """
    try:
        descriptor = os.open(kernel_log, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        for _ in range(_READ_AT_MOST):
            try:
                lines = os.read(descriptor, 8192).decode(errors="replace")
            except BrokenPipeError:
                continue  # a message was overwritten before it was read
            except OSError:
                return None
            if not lines:
                return None
            for line in lines.splitlines():
                head, _, text = line.partition(";")
                found = _XID.search(text)
                stamp = head.split(",")[2:3]
                late = bool(stamp) and stamp[0].isdigit() and int(stamp[0]) / 1e6 >= since
                if found is not None and late and int(found[3]) in _XIDS:
                    return f"the driver reports Xid {found[3]} of GPU {found[2]}"
    finally:
        os.close(descriptor)
    return None


def _full_disk(project: Path) -> str | None:
    """A disk that is full of what is not the program's; one that the program has filled would be full again."""
    usage = shutil.disk_usage(project)
    own = sum(path.lstat().st_size for path in project.rglob("*") if path.is_file() and not path.is_symlink())
    return "its disk is full, and not by the training's files" if own < usage.used / 2 else None
