"""The random state of one rank: Python, NumPy, torch and CUDA, as tensors and plain types.

`torch.load(weights_only=True)` refuses NumPy's own state and Python's tuples inside some containers; tensors, ints
and floats it takes.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


def capture() -> dict[str, Any]:
    """The state of every generator that this rank has."""
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        # The rank's own device alone: asking for others would start a context on each.
        state["cuda"] = torch.cuda.get_rng_state()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kind, keys, position, has_gauss, cached = numpy.random.get_state()
        state["numpy"] = {
            "kind": kind,
            "keys": torch.tensor(keys.astype("int64")),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        }
    return state


def restore(state: dict[str, Any]) -> None:
    """Put every generator back where `capture` found it."""
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "numpy" in state:
        import numpy as np

        saved = state["numpy"]
        keys = saved["keys"].numpy().astype("uint32")
        np.random.set_state((saved["kind"], keys, saved["position"], saved["has_gauss"], saved["cached"]))


def derive(state: dict[str, Any], rank: int) -> None:
    """Seed every generator anew from rank 0's state and the rank's number, for a rank that has none saved."""
    seed = (int(state["torch"][:8].to(torch.int64).sum()) * 1_000_003 + rank) % (1 << 32)
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in state:
        import numpy as np

        np.random.seed(seed)
