"""Several loops over one checkpointer, as a training of two phases has them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runctl import hostdir
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.policy import RankPolicy
from runctl.hostdir import HostDir
from runctl.spec import Every, Retention
from runctl.training.checkpointer import Checkpointer


@pytest.mark.slow
@pytest.mark.parametrize("launched", [True, False])
def test_a_second_loop_is_saved_and_carried_like_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launched: bool
) -> None:
    host_dir = HostDir(tmp_path / "host")
    (host_dir.path / "workers").mkdir(parents=True)
    monkeypatch.setenv(hostdir.ENV, str(host_dir.path))
    monkeypatch.setattr("runctl.training.meeting.Meeting.stop_on_signals", lambda *_: None)
    monkeypatch.setattr("runctl.training.plain.at_own_exit", lambda _: None)
    policy = RankPolicy(
        str(tmp_path / "checkpoints"), "run", every=Every("steps", 4), retention=Retention(keep_last=9),
        launched=launched, upload_to=None if launched else str(tmp_path / "away"),
    )  # fmt: skip
    ck = Checkpointer(policy, {"model": torch.nn.Linear(1, 1)}, None, None)
    for total in (3, 3, 8, 8):  # a relaunch passes those at once that had come to their end
        for _ in ck.steps(total):
            assert not ck.should_stop
        assert not ck.should_stop, "an evaluation between two loops is none that ends early"
        assert Catalog(Path(policy.folder)).steps()[-1] == total
        if not launched:
            assert Catalog(tmp_path / "away" / "checkpoints").steps()[-1] == total
    assert 4 in Catalog(Path(policy.folder)).steps()
