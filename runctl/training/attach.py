"""`runctl.attach`: what a script gives, and where its checkpoints lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from runctl.checkpoint.policy import RankPolicy
from runctl.durations import parse_every
from runctl.training.checkpointer import RESERVED, Checkpointer, key_of


def attach(
    *,
    model: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    scaler: Any = None,
    loader: Any = None,
    config: Mapping[str, Any] | None = None,
    folder: str | Path = "checkpoints",
    every: str = "10m",
    url: str | None = None,
    **others: Any,
) -> Checkpointer:
    """Restore what there is to restore, and checkpoint from now on.

    Args:
        model: the module; one wrapped by DDP or torch.compile is saved without its wrapper.
        optimizer, scheduler, scaler: as in any PyTorch training.
        loader: for its position in the data.
        config: plain values that belong to the training, kept in each checkpoint.
        folder: where the checkpoints lie, without a launcher; the launcher's word wins.
        every: how often one is taken, as `checkpoint.every` says it: `10m`, `500steps`, `1epoch`, or `auto`, which
            weighs what a save costs against what an interruption would; the launcher's word wins.
        url: where checkpoints are carried to without a launcher, below `<url>/checkpoints/`: any fsspec URL. What is
            there is found again from another machine.
        **others: anything else with `state_dict` and `load_state_dict`, by name.

    Returns:
        The checkpointer; call it on every rank.

    Raises:
        CheckpointError: if a checkpoint is there and cannot be restored.
        ConfigError: for an `every` that is none.
        TypeError: for something without `state_dict`.
    """
    given = {"model": _unwrapped(model), "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler, **others}
    parts = {name: part for name, part in given.items() if part is not None}
    for name, part in parts.items():
        if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
            raise TypeError(f"runctl.attach({name}=…): a {type(part).__name__} has no state_dict and load_state_dict")
        if key_of(name) in RESERVED and name not in ("model", "optimizer"):
            raise TypeError(f"runctl.attach({name}=…): the name is taken; choose another")
    wanted = parse_every(str(every), "every")  # also under a launcher, so that a bad one is found wherever it runs
    policy = RankPolicy.from_environment()
    if policy is None:
        policy = RankPolicy(str(Path(folder).absolute()), "plain", every=wanted, launched=False, upload_to=url)
    return Checkpointer(policy, parts, loader, config)


def _unwrapped(model: Any) -> Any:
    """The module inside DDP's and torch.compile's wrappers, in whichever order."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, torch.nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner
