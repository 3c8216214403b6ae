"""A run on a rented host that another machine, which has never seen its project, stops and goes on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runctl.drill.cloud import Cloud

BIN = Path(sys.executable).parent
SCRIPT = """
import os, pathlib, time
from parts import words
found = os.environ.get("RUNCTL_RESUME_FROM")
begun = int(pathlib.Path(found).read_text()) if found else 0
print(words.GREETING, "from", begun, flush=True)
for step in range(begun + 1, begun + (4 if found else 900)):
    time.sleep(0.1)
    pathlib.Path(".aside").write_text(str(step))
    os.replace(".aside", "out.json")
    print(f"step={step}", flush=True)
"""


class Machine:
    """A user's machine: a home of its own, an account that is shared."""

    def __init__(self, home: Path, cloud: Cloud) -> None:
        home.mkdir()
        self.home = home
        own = {"HOME": home, "XDG_STATE_HOME": home / "state", "XDG_CONFIG_HOME": home / "config"}
        self.env = cloud.environment({**os.environ, **{name: str(path) for name, path in own.items()}})

    def run(self, *words: str, cwd: Path | None = None) -> tuple[str, str]:
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]], cwd=cwd or self.home, env=self.env, capture_output=True, text=True,
            timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
        return done.stdout, done.stderr


@pytest.mark.soak  # a minute
@pytest.mark.timeout(400)
def test_another_machine_stops_a_run_and_goes_on_with_it_from_what_its_launch_sent(tmp_path: Path) -> None:
    with Cloud() as cloud:
        cloud.make_bucket("shared")
        root = "s3://shared/runs"
        mine, theirs = Machine(tmp_path / "mine", cloud), Machine(tmp_path / "theirs", cloud)
        project = mine.home / "proj"
        (project / "parts").mkdir(parents=True)
        (project / "train.py").write_text(SCRIPT)
        (project / "parts" / "words.py").write_text("GREETING = 'begun'")
        mine.run(
            "runctl-launch", "+platform=aws", "platform.instance_type=t3.medium", "script=train.py", "detach=true",
            "run.id=base", f"run.root={root}", "checkpoint.watch=out.json", cwd=project,
        )  # fmt: skip
        place = f"{root}/base"
        deadline = time.monotonic() + 150
        while not json.loads(theirs.run("runctl", "checkpoint", "list", place, "--json")[0]):
            assert time.monotonic() < deadline
            time.sleep(1)
        theirs.run("runctl", "stop", place)
        (project / "parts" / "words.py").write_text("GREETING = 'changed'")  # it is not this that goes on
        out, said = theirs.run("runctl", "resume", "base")
        assert f"fetching the project of base from {root}/.parcels/" in said
        assert "begun from" in out and "begun from 0\n" not in out
        told = json.loads(theirs.run("runctl", "show", "base", "--json")[0])
        assert told["run"]["state"] == "succeeded" and told["run"]["attempt"] == 2
        assert [one["state"] for one in cloud.instances()] == ["terminated"] * 2
        assert {one["machine"] for one in cloud.instances()} == {"t3.medium"}  # the platform's options came along
