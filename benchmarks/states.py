"""What the benchmarks have saved: a model, its optimizer if it has one, and copies of their bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

TENSORS = 16


class Weights(torch.nn.Module):
    """A model that is nothing but so many bytes in float32 tensors."""

    def __init__(self, size_gb: float) -> None:
        super().__init__()
        count = int(size_gb * 1e9 / 4 / TENSORS)
        for number in range(TENSORS):
            self.register_buffer(f"t{number}", torch.randn(count))


class Layer(torch.nn.Module):
    """The matrices of one layer of a language model (Llama's: 4 square ones, 3 that are 2.7 times as wide)."""

    def __init__(self, width: int, device: str) -> None:
        super().__init__()
        wide = width * 8 // 3
        for number in range(4):
            self.register_parameter(f"square{number}", _matrix(width, width, device))
        for number in range(3):
            self.register_parameter(f"wide{number}", _matrix(width, wide, device))
        for number in range(2):
            self.register_parameter(f"norm{number}", _matrix(1, width, device))


@dataclass(frozen=True)
class Training:
    """A training as far as checkpoints go."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer | None
    device: str

    def state(self) -> dict[str, Any]:
        """The live state."""
        state = {"model_state_dict": self.model.state_dict()}
        return state if self.optimizer is None else state | {"optimizer_state_dict": self.optimizer.state_dict()}

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor of the state."""
        return list(_tensors(self.state()))

    def wait(self) -> None:
        """Have the device do all that it was given."""
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)


def float32_weights(size_gb: float, _device: str) -> Training:
    """16 tensors of the same size, no optimizer."""
    return Training(Weights(size_gb), None, "cpu")


def bf16_with_adam(size_gb: float, device: str) -> Training:
    """A language model of `size_gb` in bfloat16, and Adam's state of twice as much, as a step leaves them."""
    width = 4096 if size_gb >= 1 else 256
    layer_bytes = 2 * sum(p.numel() for p in Layer(width, "meta").parameters())
    layers = max(1, round(size_gb * 1e9 / layer_bytes))
    model = torch.nn.Sequential(*(Layer(width, device) for _ in range(layers)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, foreach=False)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Training(model, optimizer, device)


def copying(training: Training) -> Callable[[], None]:
    """The limit: the same bytes into buffers that exist and were touched; pinned ones, if they come from a GPU."""
    tensors = training.tensors()
    buffers = [torch.zeros_like(tensor, device="cpu", pin_memory=tensor.is_cuda) for tensor in tensors]

    def copy() -> None:
        for buffer, tensor in zip(buffers, tensors, strict=True):
            buffer.copy_(tensor, non_blocking=tensor.is_cuda)
        training.wait()

    return copy


def _matrix(rows: int, columns: int, device: str) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.full((rows, columns), 0.01, dtype=torch.bfloat16, device=device))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value.detach()
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
