"""A copy of live tensors in memory that another process can read: all that the training loop waits for.

The copy goes into one buffer (an anonymous file in memory), laid out once and used again for every save. The
writer process maps the same buffer; what travels between the two is only the skeleton of the state.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from runctl.errors import CheckpointError, CheckpointUnloadable

_ALIGN = 64
_PLAIN = (bool, int, float, str, bytes, type(None))
#: cudaHostRegisterPortable: pinned for the contexts of all devices (CUDA runtime API, "Memory Management").
_PORTABLE = 1


@dataclass(frozen=True)
class Slot:
    """Where a tensor lies in the buffer."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def view(self, buffer: mmap.mmap) -> torch.Tensor:
        """The tensor over the buffer's memory."""
        if self.size_bytes == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        raw = torch.frombuffer(buffer, dtype=torch.uint8, count=self.size_bytes, offset=self.offset)
        return raw.view(self.dtype).view(self.shape)


class Snapshot:
    """The buffer, and the copying into it.

    Attributes:
        descriptor: the buffer's file descriptor, for the writer to inherit.
    """

    def __init__(self) -> None:
        self.descriptor = _anonymous_file()
        self._buffer: mmap.mmap | None = None
        self._views: dict[Slot, torch.Tensor] = {}
        self._slots: dict[tuple[Any, ...], Slot] = {}
        self._used = 0
        self._reserving: threading.Thread | None = None
        self._failure: Exception | None = None
        self._pinned_at: int | None = None
        self._unpinnable = False

    def prepare(self, state: Mapping[str, Any]) -> None:
        """Lay the buffer out for such a state and have its pages brought in, beside the training.

        Fresh pages cost several times what the copy into them does. Call it once the optimizer has its state.

        Raises:
            CheckpointUnloadable: as `take`.
        """
        _, pairs, size_bytes = self._lay_out(state)
        self._reserve(size_bytes, _gpus(pairs))

    def take(self, state: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """Copy every tensor of a nested state into the buffer.

        A tensor on a GPU is copied when its device's current stream has done what it was given before.

        Args:
            state: nested dicts, lists and tuples of tensors and plain values.

        Returns:
            The skeleton, in which each tensor is its `Slot`, and the buffer's size in bytes.

        Raises:
            CheckpointUnloadable: for a value that would save but not load, naming its key.
            CheckpointError: if there is no memory for the buffer.
        """
        skeleton, pairs, size_bytes = self._lay_out(state)
        gpus = _gpus(pairs)
        self._reserve(size_bytes, gpus)
        self.join()
        for tensor, slot in pairs:
            # Only CUDA promises that what was begun is done once its stream is waited for.
            self._view(slot).copy_(tensor.detach().resolve_conj().resolve_neg(), non_blocking=tensor.is_cuda)
        for gpu in gpus:
            torch.cuda.current_stream(gpu).synchronize()
        return skeleton, size_bytes

    def join(self) -> None:
        """Wait until the buffer that `prepare` asked for is there.

        Raises:
            CheckpointError: if there is no memory for it.
        """
        if self._reserving is not None:
            self._reserving.join()
            self._reserving = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise CheckpointError(f"no memory for a snapshot of {self._used} bytes: {failure}") from failure

    def _lay_out(self, state: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[torch.Tensor, Slot]], int]:
        """The skeleton of a state, its tensors with their slots, and the bytes they take."""
        self._slots, self._used = {}, 0
        pairs: list[tuple[torch.Tensor, Slot]] = []
        return self._skeleton(state, "", pairs), pairs, self._used

    def _skeleton(self, value: Any, key: str, pairs: list[tuple[torch.Tensor, Slot]]) -> Any:
        if isinstance(value, torch.Tensor):
            return self._slot(value, key, pairs)
        if isinstance(value, Mapping):
            for name in value:
                if not isinstance(name, _PLAIN):
                    raise CheckpointUnloadable(
                        f"{key}: the key {name!r} would not load again; use a string or a number"
                    )

            def below(item: Any, name: Any) -> Any:
                return self._skeleton(item, f"{key}.{name}" if key else str(name), pairs)

            return _mapped(value, below)
        if isinstance(value, (list, tuple)):
            items = [self._skeleton(item, f"{key}[{number}]", pairs) for number, item in enumerate(value)]
            return items if isinstance(value, list) else tuple(items)
        if type(value) not in _PLAIN:
            raise CheckpointUnloadable(
                f"{key}: a {type(value).__module__}.{type(value).__name__} saves but does not load with "
                "weights_only=True; keep it as a tensor, a number or a string"
            )
        return value

    def _slot(self, tensor: torch.Tensor, key: str, pairs: list[tuple[torch.Tensor, Slot]]) -> Slot:
        if tensor.layout is not torch.strided or tensor.is_quantized or hasattr(tensor, "device_mesh"):
            raise CheckpointUnloadable(f"{key}: a {tensor.layout} {type(tensor).__name__} can't be checkpointed yet")
        # Tied weights share their memory and are copied once.
        same = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.device)
        slot = self._slots.get(same) if tensor.numel() else None
        if slot is None:
            slot = Slot(self._used, tensor.dtype, tuple(tensor.shape))
            self._used += -(-slot.size_bytes // _ALIGN) * _ALIGN
            self._slots[same] = slot
            pairs.append((tensor, slot))
        return slot

    def _view(self, slot: Slot) -> torch.Tensor:
        view = self._views.get(slot)
        if view is None:
            assert self._buffer is not None
            view = self._views[slot] = slot.view(self._buffer)
        return view

    def _reserve(self, size_bytes: int, gpus: list[torch.device]) -> None:
        """Begin to get the buffer at least so large, every page of it in memory, pinned if there are GPUs."""
        self.join()
        size_bytes = max(size_bytes, mmap.PAGESIZE)
        large = self._buffer is not None and len(self._buffer) >= size_bytes
        if large and (not gpus or self._pinned_at is not None or self._unpinnable):
            return
        # Always a thread of its own: CUDA keeps the last error of each thread, and PyTorch would raise one that
        # pinning left behind in the training's thread at its next kernel.
        self._reserving = threading.Thread(
            target=self._make_room, args=(size_bytes, large, gpus), name="runctl-buffer", daemon=True
        )
        self._reserving.start()

    def _make_room(self, size_bytes: int, large: bool, gpus: list[torch.device]) -> None:
        try:
            if not large:
                self._unpin()
                self._views.clear()
                self._buffer = None
                os.ftruncate(self.descriptor, size_bytes)
                buffer = mmap.mmap(self.descriptor, size_bytes)
                # By PyTorch, which lets go of the interpreter's lock while the kernel clears the pages.
                torch.frombuffer(buffer, dtype=torch.uint8)[:: mmap.PAGESIZE].fill_(0)
                self._buffer = buffer
            if gpus:
                self._pin(gpus[0])
        except Exception as error:  # noqa: BLE001 (whoever waits for the buffer raises it)
            self._failure = error

    def _pin(self, gpu: torch.device) -> None:
        """Have the devices copy into the buffer at full speed; without it copies are right all the same, but slow."""
        assert self._buffer is not None
        address = torch.frombuffer(self._buffer, dtype=torch.uint8).data_ptr()
        # A new thread stands at device 0, where this process may have no business.
        with torch.cuda.device(gpu):
            runtime = torch.cuda.cudart()
            code = runtime.cudaHostRegister(address, len(self._buffer), _PORTABLE)
        if int(code) == 0:
            self._pinned_at = address
        else:
            self._unpinnable = True
            sys.stderr.write(
                "runctl: the memory for snapshots can't be pinned, so that copies from the GPU take longer: "
                f"cudaHostRegister answered {int(code)}, {runtime.cudaGetErrorString(code)}\n"
            )

    def _unpin(self) -> None:
        """Before the buffer is unmapped: the driver would go on writing to the pages that were at these addresses."""
        if self._pinned_at is not None:
            code = torch.cuda.cudart().cudaHostUnregister(self._pinned_at)
            self._pinned_at = None
            if int(code) != 0:
                raise RuntimeError(f"cudaHostUnregister answered {int(code)}")


def _gpus(pairs: list[tuple[torch.Tensor, Slot]]) -> list[torch.device]:
    """The CUDA devices that the tensors are on."""
    return list({tensor.device: None for tensor, _ in pairs if tensor.is_cuda})


def fill(skeleton: Any, buffer: mmap.mmap) -> Any:
    """The state again: the skeleton with each slot's tensor over the buffer."""
    tensors: dict[Slot, torch.Tensor] = {}

    def filled(value: Any) -> Any:
        if isinstance(value, Slot):
            if value not in tensors:
                tensors[value] = value.view(buffer)
            return tensors[value]
        if isinstance(value, dict):
            return _mapped(value, lambda item, _: filled(item))
        if isinstance(value, (list, tuple)):
            return type(value)(filled(item) for item in value)
        return value

    return filled(skeleton)


def _mapped(value: Mapping[Any, Any], call: Callable[[Any, Any], Any]) -> dict[Any, Any]:
    """A dict of what `call` makes of each item and its name.

    `Module.state_dict` keeps the versions of its modules in an attribute, as does torch.save. There are modules that
    load nothing without (torchvision's MNASNet), and others that take it for a file of long ago.
    """
    made = {name: call(item, name) for name, item in value.items()}
    versions = getattr(value, "_metadata", None)
    if versions is None:
        return made
    ordered: OrderedDict[Any, Any] = OrderedDict(made)
    ordered._metadata = call(versions, "_metadata")  # type: ignore[attr-defined]
    return ordered


def _anonymous_file() -> int:
    """A file that has no name and lives in memory; /dev/shm is 64 MB in Docker, memfd has no such bound."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("runctl-snapshot")
    else:
        descriptor, path = tempfile.mkstemp(prefix="runctl-snapshot-")
        os.unlink(path)  # noqa: PTH108
    return descriptor
