"""Inputs of this machine are sent once by their content, and anew before a bucket drops them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runctl.platforms import local_data
from runctl.spec import Data, LaunchSpec, Program, RunIdentity, Transfer


def test_what_was_sent_is_not_sent_again_until_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numbers.csv").write_text("1,2,3")
    given = LaunchSpec(
        RunIdentity("run", "run", str(tmp_path / "runs")), Program("train.py", None),
        data=Data(inputs=(Transfer("numbers.csv", "data"),)),
    )  # fmt: skip
    told: list[str] = []
    for days, sends in ((0, 1), (29, 1), (31, 2), (60, 2), (62, 3)):
        now = 1_800_000_000 + days * 24 * 3600.0
        monkeypatch.setattr(time, "time", lambda now=now: now)
        there = local_data.sent(given, tmp_path, told.append).data.inputs[0].source
        assert Path(there).read_text() == "1,2,3"
        assert len(told) == sends, (days, told)
