"""How long a training loop waits for a checkpoint, against the other ways of taking one.

    python benchmarks/checkpoint.py [SIZES_GB, such as 0.1,1,4] [ROUNDS]

One process, one thread, a state of float32 tensors. Each way is asked for a save, the loop's wait is measured, and
the next round begins once that save is on disk. `memcpy` is the limit: the same bytes into buffers that exist and
have been touched. The goal: at 1 GB a wait of at most 1.3 times memcpy's, and below every peer's.

The second table is what a save does to the steps beside it: the median step while a checkpoint is being written over
the median step while none is.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

import runctl
from runctl.training.checkpointer import Checkpointer

TENSORS = 16
Way = Callable[[dict[str, torch.Tensor], Path], Iterator[Callable[[], float]]]


class Weights(torch.nn.Module):
    """A model that is nothing but its tensors."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in state.items():
            self.register_buffer(name, tensor)


@contextlib.contextmanager
def memcpy(state: dict[str, torch.Tensor], _folder: Path) -> Iterator[Callable[[], float]]:
    buffers = [torch.zeros_like(tensor) for tensor in state.values()]

    def save() -> float:
        began = time.perf_counter()
        for buffer, tensor in zip(buffers, state.values(), strict=True):
            buffer.copy_(tensor)
        return time.perf_counter() - began

    yield save


@contextlib.contextmanager
def torch_save(state: dict[str, torch.Tensor], folder: Path) -> Iterator[Callable[[], float]]:
    def save() -> float:
        began = time.perf_counter()
        torch.save(state, folder / "state.pt")
        return time.perf_counter() - began

    yield save


@contextlib.contextmanager
def dcp_async(state: dict[str, torch.Tensor], folder: Path) -> Iterator[Callable[[], float]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)

    def save() -> float:
        began = time.perf_counter()
        future = dcp.async_save(state, checkpoint_id=str(folder / "dcp"))
        took = time.perf_counter() - began
        future.result()
        return took

    yield save
    dist.destroy_process_group()


@contextlib.contextmanager
def lightning_async(state: dict[str, torch.Tensor], folder: Path) -> Iterator[Callable[[], float]]:
    from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

    def save() -> float:
        plugin = AsyncCheckpointIO(TorchCheckpointIO())
        began = time.perf_counter()
        plugin.save_checkpoint({"state_dict": state}, str(folder / "lightning.ckpt"))
        took = time.perf_counter() - began
        plugin.teardown()
        return took

    yield save


@contextlib.contextmanager
def ours(state: dict[str, torch.Tensor], folder: Path) -> Iterator[Callable[[], float]]:
    ck = runctl.attach(model=Weights(state), folder=folder / "ours", every="1000000000steps")
    ck.saver.prepare(ck.state())
    ck.saver.wait_until_prepared()

    def save() -> float:
        ck.step += 1
        began = time.perf_counter()
        ck.save()
        took = time.perf_counter() - began
        settle(ck)
        return took

    yield save
    ck.saver.finish()


def settle(ck: Checkpointer) -> None:
    while ck.saver.busy:
        ck.saver.poll()
        time.sleep(0.01)


WAYS = {"memcpy (the limit)": memcpy, "runctl": ours, "torch.save": torch_save, "dcp.async_save": dcp_async}
if importlib.util.find_spec("lightning"):
    WAYS["Lightning AsyncCheckpointIO"] = lightning_async


def main() -> None:
    sizes = [float(word) for word in (sys.argv[1] if len(sys.argv) > 1 else "0.1,1").split(",")]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    torch.set_num_threads(1)
    if "Lightning AsyncCheckpointIO" not in WAYS:
        print("Lightning is not installed: its AsyncCheckpointIO is left out (pip install lightning)")
    for size_gb in sizes:
        print(f"\n{size_gb:g} GB in {TENSORS} tensors, {rounds} rounds; seconds that the loop waits")
        print(f"{'':<28} {'first':>8} {'median':>8} {'slowest':>8} {'x memcpy':>9}")
        limit = None
        for name, way in WAYS.items():
            waits = in_a_child(way, size_gb, rounds)
            median = statistics.median(waits[1:])
            limit = limit or median
            print(f"{name:<28} {waits[0]:8.3f} {median:8.3f} {max(waits[1:]):8.3f} {median / limit:8.2f}x")
    print("\nStep time beside a save (1 rank, 1 thread, 1 GB):")
    quiet, beside, peak = beside_saves(1.0)
    print(f"  none {quiet * 1000:.2f} ms, while one is written {beside * 1000:.2f} ms, ratio {beside / quiet:.3f}")
    print(f"  the process's peak memory beyond its own state: {peak / 1e9 - 1:.2f} GB (with torch itself)")


def in_a_child(way: Way, size_gb: float, rounds: int) -> list[float]:
    """Waits of one way, in a process of its own, so that no way inherits another's memory."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = int(size_gb * 1e9 / 4 / TENSORS)
        state = {f"t{number}": torch.randn(count) for number in range(TENSORS)}
        with tempfile.TemporaryDirectory() as folder, way(state, Path(folder)) as save:
            waits = [save() for _ in range(rounds + 1)]
        os.write(write, repr(waits).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit(f"{way.__name__} failed")
    return [float(word) for word in text.strip("[]").split(",")]


def beside_saves(size_gb: float) -> tuple[float, float, int]:
    """Median step without and with a save in progress (s), and the process's peak memory (bytes)."""
    count = int(size_gb * 1e9 / 4 / TENSORS)
    model = Weights({f"t{number}": torch.randn(count) for number in range(TENSORS)})
    left, right = torch.randn(256, 256), torch.randn(256, 256)
    folder = tempfile.mkdtemp()
    ck = runctl.attach(model=model, folder=folder, every="1000000000steps")
    gc.collect()
    times: dict[bool, list[float]] = {True: [], False: []}
    began_all = time.monotonic()
    for step in ck.steps(1_000_000_000):
        if step % 400 == 399 and not ck.saver.busy:
            ck.save()
        busy = ck.saver.busy
        began = time.perf_counter()
        for _ in range(10):
            left @ right
        times[busy].append(time.perf_counter() - began)
        if time.monotonic() - began_all > 30:
            break
    settle(ck)
    ck.saver.finish()
    shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return statistics.median(times[False]), statistics.median(times[True]), peak


if __name__ == "__main__":
    main()
