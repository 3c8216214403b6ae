"""What a host broke is told from what the program did wrong."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from runctl.hosts.faults import host_fault

NOWHERE = Path("/nowhere")
Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "a GPU's memory is broken"),
        ("RuntimeError: CUDA error: uncorrectable NVLink error detected", "a GPU's memory is broken"),
        ("Unable to determine the device handle for GPU: GPU is lost", "a GPU is lost"),
        ("torch.distributed.DistBackendError: NCCL error: ncclRemoteError: a call failed", "NCCL's network failed"),
        ("ncclSystemError: System call (e.g. socket, malloc) or external library call failed", "NCCL's network failed"),
        ("NCCL WARN NET/IB : Got completion with error 12", "NCCL's network failed"),
    ],
)
def test_what_the_hardware_and_the_network_did(tmp_path: Path, said: str, fault: str) -> None:
    assert host_fault(said, 0.0, tmp_path, NOWHERE) == fault


@pytest.mark.parametrize(
    "said",
    [
        "ValueError: bad batch",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "RuntimeError: CUDA error: device-side assert triggered",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB",
        "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=2, OpType=ALLREDUCE)",
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library",
        "ended by SIGKILL; the kernel does that when memory runs out (see dmesg)",
    ],
)
def test_what_the_program_did(tmp_path: Path, said: str) -> None:
    assert host_fault(said, 0.0, tmp_path, NOWHERE) is None


def message(seconds: float, xid: int) -> str:
    return f"3,1042,{int(seconds * 1e6)},-;NVRM: Xid (PCI:0000:00:1e): {xid}, pid='<unknown>', GPU has had a fault.\n"


@pytest.mark.parametrize(
    ("log", "fault"),
    [
        (message(101, 79), "the driver reports Xid 79 of GPU 0000:00:1e"),
        (message(101, 31) + message(102, 48), "the driver reports Xid 48 of GPU 0000:00:1e"),
        (message(99, 79), None),
        (message(101, 31), None),
        ("6,1,101000000,-;eth0: link is up\n SUBSYSTEM=net\n", None),
        ("not a kernel's message; NVRM: Xid (PCI:0): 79, late\n", None),
    ],
    ids=["off the bus", "after one of a program's", "before the training began", "a program's", "another's", "odd"],
)
def test_the_drivers_word_counts_if_it_came_meanwhile(tmp_path: Path, log: str, fault: str | None) -> None:
    kernel = tmp_path / "kmsg"
    kernel.write_text(log)
    assert host_fault("RuntimeError: CUDA error: unknown error", 100.0, tmp_path, kernel) == fault


def test_a_full_disk_is_the_hosts_fault_unless_the_program_filled_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "OSError: [Errno 28] No space left on device: 'out/x'"
    (tmp_path / "out").write_bytes(b"x" * 600)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000, 1000, 0))
    assert host_fault(said, 0.0, tmp_path, NOWHERE) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10_000, 10_000, 0))
    assert host_fault(said, 0.0, tmp_path, NOWHERE) == "its disk is full, and not by the training's files"
