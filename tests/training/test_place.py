"""Which rank a process is: torchrun's word, and not that of what is around a launch without torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import runctl
from runctl import hostdir
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.policy import RankPolicy
from runctl.hostdir import HostDir
from runctl.spec import Every
from runctl.training.place import Place, here

#: As in a pod of a PyTorchJob, or in a job of Slurm's.
FOREIGN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "3"}


def test_without_torchrun_a_process_is_the_only_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    assert here() == Place(rank=0, local_rank=0, world_size=1, restart=0)
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    assert here() == Place(rank=1, local_rank=1, world_size=2, restart=3)


@pytest.mark.slow
def test_variables_around_a_launch_of_one_process_do_not_make_it_one_of_several(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import os, subprocess, sys, torch, runctl\n"
        "ck = runctl.attach(model=torch.nn.Linear(1, 1))\n"
        "for step in ck.steps(2):\n"
        "    ck.log(loss=1.0)\n"
        # What it starts may be ranks of its own.
        "child = 'from runctl.training.place import here; print(here().rank)'\n"
        "print(os.environ['RANK'], subprocess.check_output([sys.executable, '-c', child], text=True))\n"
    )
    host_dir = HostDir(tmp_path / "base" / "run" / "a1")
    host_dir.create(1)
    ends = {name: os.open(host_dir.pipe(0, name), os.O_RDONLY | os.O_NONBLOCK) for name in hostdir.STREAMS}
    policy = RankPolicy(str(tmp_path / "checkpoints"), "run", every=Every("steps", 1))
    done = subprocess.run(
        [sys.executable, Path(runctl.__file__).parent / "training" / "worker.py", "script", tmp_path / "train.py"],
        env={**os.environ, **FOREIGN, **policy.to_environment(), hostdir.ENV: str(host_dir.path),
             "RUNCTL_RUN_ID": "run", "RUNCTL_PARENT_PID": str(os.getpid())},
        timeout=150, check=False,
    )  # fmt: skip
    said = {name: os.read(end, 1 << 16).decode() for name, end in ends.items()}
    assert done.returncode == 0, said
    assert said["out"].split() == ["1", "1"]
    assert Catalog(Path(policy.folder)).steps() == [1, 2]
    assert [json.loads(line)["step"] for line in host_dir.metrics.read_text().splitlines()] == [1, 2]
