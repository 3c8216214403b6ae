"""runctl: take a PyTorch training script from a laptop to a spot GPU and back with one command.

The public names load lazily: importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "LaunchSpec": "runctl.spec",
    "Plan": "runctl.spec",
    "RunctlError": "runctl.errors",
    "Vetoed": "runctl.errors",
    "attach": "runctl.training.attach",
    "hookimpl": "runctl.hooks",
    "log": "runctl.training.log",
}
__all__ = ["LaunchSpec", "Plan", "RunctlError", "Vetoed", "__version__", "attach", "hookimpl", "log"]

if TYPE_CHECKING:
    from runctl.errors import RunctlError, Vetoed
    from runctl.hooks import hookimpl
    from runctl.spec import LaunchSpec, Plan
    from runctl.training.attach import attach
    from runctl.training.log import log


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'runctl' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
