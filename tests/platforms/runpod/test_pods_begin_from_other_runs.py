"""A pod that begins from the checkpoints of another run, which lie on the launcher's machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rented_pods import Launch, Yard, loopback

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.manifest import Manifest
from runctl.errors import CheckpointError, ConfigError
from runctl.platforms.runpod import RunpodPlatform
from runctl.platforms.runpod.options import RunpodConfig
from runctl.spec import CheckpointPolicy, LaunchSpec, Program, RunIdentity, RunState

#: What it finds to begin from, as the agent has put it there.
SCRIPT = """
import os
from pathlib import Path
for path in sorted(Path(os.environ["RUNCTL_RUN_DIR"], "checkpoints").glob("step-*/*.pt")):
    print("found", path.parent.name, path.stat().st_size, path.read_bytes()[:5].decode())
"""


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("yard")
    (folder / "project").mkdir()
    with loopback(folder) as cloud:
        yield Yard(cloud, folder / "project")


def checkpoint(run_dir: Path, step: int, words: bytes) -> Path:
    """A checkpoint of a run that somebody trained here once."""
    aside = run_dir / "checkpoints" / f".tmp-{step}"
    aside.mkdir(parents=True)
    (aside / "data.pt").write_bytes(words * 100_000)
    files = {"data.pt": manifests.hash_file(aside / "data.pt", manifests.best_hash())}
    return manifests.publish(aside, Manifest("other", 1, step, 0, 1, manifests.best_hash(), files))


def begun(yard: Yard, place: Path, **options: object) -> Launch:
    launch = yard.run(SCRIPT, spec={"checkpoint": CheckpointPolicy(origin=str(place))}, **options)
    assert launch.outcome is not None, (launch.error, launch.told)
    assert launch.outcome.state is RunState.SUCCEEDED, (launch.told, launch.output)
    return launch


def test_the_newest_that_verifies_goes_to_the_pod_and_nothing_changes_here(yard: Yard, tmp_path: Path) -> None:
    for step, words in ((20, b"older"), (30, b"newer"), (40, b"wrong")):
        checkpoint(tmp_path, step, words)
    torn = tmp_path / "checkpoints" / "step-000040" / "data.pt"
    torn.write_bytes(torn.read_bytes()[:-1] + b"x")
    launch = begun(yard, tmp_path)
    assert "found step-000030 500000 newer" in launch.output
    assert launch.output.count("found step-") == 1
    assert "resuming from step 30" in launch.output
    assert launch.outcome is not None and launch.outcome.attempts[0].resumed_from_step == 30
    assert any("sending the checkpoint of step 30: 500.0 kB" in line for line in launch.told)
    assert any("step-000040" in line and "going back to the one before" in line for line in launch.told)
    assert Catalog(tmp_path / "checkpoints").steps() == [20, 30, 40]
    assert launch.rundir.read_spec().checkpoint.origin == str(tmp_path), "only the pod has another place"


@pytest.mark.soak  # 8 s
def test_one_may_be_named_by_its_path(yard: Yard, tmp_path: Path) -> None:
    named = checkpoint(tmp_path, 20, b"older")
    checkpoint(tmp_path, 30, b"newer")
    assert "found step-000020 500000 older" in begun(yard, named).output


def test_without_one_nothing_is_rented(yard: Yard, tmp_path: Path) -> None:
    before = len(yard.cloud.pods())
    launch = yard.run(SCRIPT, spec={"checkpoint": CheckpointPolicy(origin=str(tmp_path))})
    assert isinstance(launch.error, CheckpointError)
    assert f"checkpoint.resume={tmp_path}: there is no checkpoint" in str(launch.error)
    assert len(yard.cloud.pods()) == before


def test_a_run_on_object_storage_is_told_that_its_pods_do_not_see_this_machine(yard: Yard, tmp_path: Path) -> None:
    platform = RunpodPlatform(yard.project, RunpodConfig(gpu_type="L4"))
    spec = LaunchSpec(
        RunIdentity("one", "one", "s3://bucket/runs"), Program("train.py", None),
        checkpoint=CheckpointPolicy(origin=str(tmp_path)),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="a pod cannot reach this machine; copy it to object storage"):
        platform.check_ready(spec)
