"""What every platform can be told; apart from the other schemas, for Hydra is slow to load."""

from __future__ import annotations

from dataclasses import dataclass, field

# OmegaConf reads annotations at run time, and knows Dict, not its newer spelling.
from typing import Any, Dict


@dataclass
class PlatformConfig:
    """What every platform has; a platform's own options class (`Platform.options`) derives from it.

    mean_time_to_interruption: how long a host runs on average before something takes it away, such as 8h;
    checkpoint.every=auto reckons with it.
    """

    kind: str = "local"
    mean_time_to_interruption: str = "24h"
    multipliers: Dict[str, Any] = field(default_factory=dict)
    args: Dict[str, Any] = field(default_factory=dict)
