"""A pod that begins from the checkpoints of another run, which lie on the launcher's machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rented_pods import Launch, Yard, loopback
from saving import save

from runctl.checkpoint.catalog import Catalog
from runctl.errors import CheckpointError, ConfigError
from runctl.platforms.runpod import RunpodPlatform
from runctl.platforms.runpod.options import RunpodConfig
from runctl.spec import CheckpointPolicy, LaunchSpec, Program, RunIdentity, RunState

SCRIPT = """
import torch, runctl
model = torch.nn.Linear(2, 2)
checkpointer = runctl.attach(model=model)
print("weights", model.weight.sum().item())
for step in checkpointer.steps(12):
    pass
"""
