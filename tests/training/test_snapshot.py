"""The copy out of live tensors: right at any size, after any order of work, and plain about what it can't do."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import resource
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from runctl.errors import CheckpointError
from runctl.training.snapshot import Snapshot, fill

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.gpu),
]


@pytest.fixture
def snapshot() -> Iterator[Snapshot]:
    snapshot = Snapshot()
    yield snapshot
    os.close(snapshot.descriptor)


def taken(snapshot: Snapshot, state: dict[str, Any]) -> dict[str, Any]:
    """The state as the writer sees it: another mapping of the same file."""
    skeleton, size_bytes = snapshot.take(state)
    skeleton = pickle.loads(pickle.dumps(skeleton))
    return fill(skeleton, mmap.mmap(snapshot.descriptor, max(size_bytes, mmap.PAGESIZE)))


@pytest.mark.parametrize("device", DEVICES)
def test_a_state_that_grows_gets_a_larger_buffer(snapshot: Snapshot, device: str) -> None:
    for count in (10, 100_000, 50, 3_000_000):
        state = {"a": torch.randn(count, device=device), "half": torch.randn(count, device=device).bfloat16()}
        seen = taken(snapshot, state)
        assert torch.equal(seen["a"], state["a"].cpu())
        assert torch.equal(seen["half"], state["half"].cpu())


@pytest.mark.parametrize("device", DEVICES)
def test_views_of_every_kind_are_copied_as_they_read(snapshot: Snapshot, device: str) -> None:
    base = torch.randn(64, 48, device=device)
    complex_base = torch.randn(32, device=device, dtype=torch.complex64)
    state = {
        "transposed": base.t(),
        "strided": base[::2, 1::3],
        "expanded": base[:1].expand(5, 48),
        "conjugated": complex_base.conj(),
        "negated": complex_base.conj().imag,
        "scalar": torch.tensor(7, device=device),
        "empty": torch.empty(0, 3, device=device),
    }
    seen = taken(snapshot, state)
    for name, tensor in state.items():
        assert torch.equal(seen[name], tensor.cpu()), name


@pytest.mark.parametrize("device", DEVICES)
def test_what_was_begun_before_is_in_the_copy_and_what_comes_after_is_not(snapshot: Snapshot, device: str) -> None:
    weight = torch.zeros(4_000_000, device=device)
    big = torch.randn(1024, 1024, device=device)
    snapshot.prepare({"weight": weight})
    for number in range(1, 4):
        for _ in range(30):  # on a GPU these are still under way when the snapshot is asked for
            big = torch.tanh(big @ big)
        weight.fill_(float(number))
        seen = taken(snapshot, {"weight": weight})
        weight.fill_(-1.0)
        assert seen["weight"].min() == seen["weight"].max() == number


class OfVersion2(torch.nn.Linear):
    """As torchvision's MNASNet, it refuses what does not tell of its version."""

    _version = 2

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *rest: Any) -> None:
        assert local_metadata.get("version") == 2
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def test_the_versions_of_modules_are_kept_as_torch_save_keeps_them(snapshot: Snapshot) -> None:
    model = torch.nn.Sequential(OfVersion2(2, 2))
    file = io.BytesIO()
    torch.save(taken(snapshot, {"model_state_dict": model.state_dict(), "plain": {"a": 1}}), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    model.load_state_dict(loaded["model_state_dict"])
    assert loaded["model_state_dict"]._metadata == model.state_dict()._metadata
    assert type(loaded["plain"]) is dict


def test_a_buffer_that_cannot_be_had_is_an_error_and_no_silence(snapshot: Snapshot) -> None:
    # A limit on the size of files holds for files in memory as well.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(CheckpointError, match="no memory for a snapshot of 4000000 bytes"):
            snapshot.take({"weight": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.equal(taken(snapshot, {"weight": torch.ones(1_000_000)})["weight"], torch.ones(1_000_000))


@pytest.mark.gpu
def test_memory_that_cannot_be_pinned_is_said_once_and_copies_stay_right(
    snapshot: Snapshot, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.cuda.cudart()

    class Refusing:
        cudaGetErrorString = staticmethod(real.cudaGetErrorString)

        @staticmethod
        def cudaHostRegister(_address: int, _size: int, flags: int) -> Any:
            return real.cudaHostRegister(0, 0, flags)  # the driver itself refuses this one

    monkeypatch.setattr(torch.cuda, "cudart", lambda: Refusing)
    for _ in range(2):
        weight = torch.randn(100_000, device="cuda")
        assert torch.equal(taken(snapshot, {"weight": weight})["weight"], weight.cpu())
    assert capfd.readouterr().err.count("can't be pinned") == 1
