"""The ways of taking a checkpoint that are compared: what the loop does for one, and when it is on disk."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from states import Training

import runctl

#: The bucket for what goes to object storage, as s3fs writes it.
BUCKET = "RUNCTL_BENCHMARK_BUCKET"


@dataclass
class Way:
    """One way, ready for saves.

    Attributes:
        save: what the loop calls, with any wait for the save before that its users have to do.
        settle: waits until the last save is on disk.
        deferred: saves that were put off.
    """

    save: Callable[[], None]
    settle: Callable[[], None]
    deferred: Callable[[], int] = lambda: 0


Make = Callable[[Training, Path], contextlib.AbstractContextManager[Way]]


def nothing() -> None:
    """What is left to wait for when the loop has waited for all."""


@contextlib.contextmanager
def ours(training: Training, folder: Path) -> Iterator[Way]:
    parts = {"model": training.model, "optimizer": training.optimizer}
    ck = runctl.attach(**parts, folder=folder / "ours", every="1000000000steps")
    saver = ck.saver
    assert saver is not None
    # `ck.steps` does that after the first step.
    saver.prepare(ck.state())
    saver.wait_until_prepared()

    def save() -> None:
        ck.step += 1
        ck.save()

    def settle() -> None:
        while saver.busy:
            saver.poll()
            time.sleep(0.01)

    yield Way(save, settle, lambda: saver.deferred)
    saver.finish(600.0)


@contextlib.contextmanager
def torch_save(training: Training, folder: Path) -> Iterator[Way]:
    yield Way(lambda: torch.save(training.state(), folder / "state.pt"), nothing)


@contextlib.contextmanager
def torch_save_and_upload(training: Training, folder: Path) -> Iterator[Way]:
    import s3fs

    # moto puts the parts of a large object together so slowly that s3fs's 15 s would be over, and the row would fail.
    files = s3fs.S3FileSystem(config_kwargs={"read_timeout": 600})

    def save() -> None:
        torch.save(training.state(), folder / "state.pt")
        files.put_file(str(folder / "state.pt"), f"{os.environ[BUCKET]}/state.pt")

    yield Way(save, nothing)


@contextlib.contextmanager
def dcp_async(training: Training, folder: Path) -> Iterator[Way]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    warnings.filterwarnings("ignore", message="Detected an existing checkpoint")
    before: list[Future[Any]] = []

    def settle() -> None:
        while before:
            before.pop().result()

    def save() -> None:
        settle()  # its documentation has users wait for the one before
        before.append(dcp.async_save(training.state(), checkpoint_id=str(folder / "dcp")))

    yield Way(save, settle)
    settle()
    dist.destroy_process_group()


@contextlib.contextmanager
def lightning_async(training: Training, folder: Path) -> Iterator[Way]:
    from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

    saved = threading.Semaphore(0)
    asked = 0

    class Telling(TorchCheckpointIO):
        """Says when a save is on disk."""

        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            super().save_checkpoint(*args, **kwargs)
            saved.release()

    plugin = AsyncCheckpointIO(Telling())

    def save() -> None:
        nonlocal asked
        asked += 1
        plugin.save_checkpoint(training.state(), str(folder / "lightning.ckpt"))

    def settle() -> None:
        nonlocal asked
        while asked:
            saved.acquire()
            asked -= 1

    yield Way(save, settle)
    plugin.teardown()


WAYS: dict[str, Make] = {
    "runctl": ours,
    "torch.save": torch_save,
    "torch.save + s3fs": torch_save_and_upload,
    "dcp.async_save": dcp_async,
    "Lightning AsyncCheckpointIO": lightning_async,
}
#: Ways in which the loop goes on while a save is written.
BESIDE = ["runctl", "dcp.async_save", "Lightning AsyncCheckpointIO"]


def missing(name: str) -> str | None:
    """Why a way can't be measured here, or None."""
    needs = {"torch.save + s3fs": ["moto", "flask"], "Lightning AsyncCheckpointIO": ["lightning"]}
    for package in needs.get(name, []):
        if importlib.util.find_spec(package) is None:
            return f"left out: {package} is not installed"
    return None
