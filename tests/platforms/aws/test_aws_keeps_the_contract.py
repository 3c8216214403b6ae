"""The contract of every platform, kept by AWS on the loopback cloud."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from contract import Bench, PlatformContract
from rehearsal import ROOT, Rehearsal, rehearsal

from runctl.drill.cloud import Cloud
from runctl.drill.sandboxes import MARK
from runctl.platforms.aws import AwsPlatform
from runctl.platforms.aws.options import AwsConfig
from runctl.processes import find_by_environment
from runctl.spec import RunHandle

#: Where an instance keeps what is runctl's; in the drill below a folder of its own.
HOST_ROOT = "/var/lib/runctl"


@dataclass
class AwsBench(Bench):
    """Scripts write on instances, which are folders in the drill."""

    cloud: Cloud = field(kw_only=True)
    patience_s: float = 60.0
    answers_s: float = 3.0
    at_once_s: float = 12.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._before = {one["id"] for one in self.cloud.instances()}

    @property
    def run_root(self) -> str:
        return ROOT

    def _instances(self) -> list[dict[str, Any]]:
        return [one for one in self.cloud.instances() if one["id"] not in self._before]

    def written(self, name: str) -> list[Path]:
        folders = [Path(one["folder"] + HOST_ROOT) for one in self._instances()]
        return [path for folder in folders for path in folder.glob(f"*/a*/project/{name}")]

    def starts(self) -> list[dict]:
        starts = []
        for path in self.written("starts"):
            root = path.parents[3]
            planned = {
                str(root): HOST_ROOT,
                f"{root.parents[2] / 'tmp'}/runctl-{os.getuid()}": f"{HOST_ROOT}/tmp/runctl-0",
                f'["{sys.executable}"': '["python3"',
            }
            text = path.read_text()
            for here, there in planned.items():
                text = text.replace(here, there)
            starts += [json.loads(line) for line in text.splitlines()]
        return starts

    def lose_the_agent(self, handle: RunHandle) -> None:
        for pid in find_by_environment(MARK, handle.address["instance"]):
            with contextlib.suppress(psutil.Error):  # another of its processes ended meanwhile
                if "runctl.agent" in psutil.Process(pid).cmdline():
                    os.kill(pid, signal.SIGKILL)

    def traces(self) -> object:
        return super().traces(), [one["id"] for one in self.cloud.instances()]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with rehearsal(tmp_path_factory.mktemp("aws")) as made:
        yield made


class TestAws(PlatformContract):
    @pytest.fixture
    def bench(self, aws: Rehearsal, tmp_path: Path) -> Bench:
        config = AwsConfig(instance_type="t3.medium", region="us-east-1", keep_on_failure="0")
        return AwsBench(lambda project: AwsPlatform(project, config, lambda _: None), tmp_path, cloud=aws.cloud)
