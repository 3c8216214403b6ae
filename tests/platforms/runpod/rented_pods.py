"""Launches on the loopback RunPod, in this process and with short pauses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runctl import buying
from runctl.drill.runpod.cloud import RunpodCloud
from runctl.platforms import watching
from runctl.platforms.runpod import line, pods, purchase

#: The waits of a launch, shortened: what is tested is what comes after what, not how long it takes.
PAUSES = (
    (purchase, "_PAUSE_S", 0.02),
    (pods, "_PAUSE_S", 0.05),
    (watching, "_STATUS_S", 0.3),
    (watching, "_HOST_S", 0.5),
    (watching, "COMING_UP_S", 0.2),
    (watching, "_LAST_WORDS_S", 1.0),
    (line, "_ROUND_S", 0.2),
    (line, "_AGAIN_S", 0.2),
    (buying, "_FIRST_PAUSE_S", 0.2),
)
GPU = "NVIDIA RTX A5000"


@contextlib.contextmanager
def loopback(folder: Path) -> Iterator[RunpodCloud]:
    """A RunPod for launches from this process, which sees no other meanwhile."""
    with RunpodCloud() as cloud, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RUNPOD_")]:
            patch.delenv(name)
        for name, value in cloud.environment({}).items():
            patch.setenv(name, value)
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        for module, name, value in PAUSES:
            patch.setattr(module, name, value)
        yield cloud
