"""The wheel: what is in it, and a launch from it far away from the repository."""

from __future__ import annotations

import email.message
import email.parser
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, sys, runctl, runctl.conf
print("rank", os.environ["RANK"], runctl.__file__, list(runctl.conf.__path__), sys.argv[1:], flush=True)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's files, so that building leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built through a source distribution, as a release is."""
    return build(source, tmp_path_factory.mktemp("dist"))


def build(source: Path, dist: Path, *options: str) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), *options, str(source)]
    done = subprocess.run(command, cwd=dist, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = dist.glob("*.whl")
    return built


def names(wheel: Path) -> list[str]:
    return sorted(zipfile.ZipFile(wheel).namelist())


def metadata(wheel: Path) -> email.message.Message:
    (name,) = (name for name in names(wheel) if name.endswith(".dist-info/METADATA"))
    return email.parser.BytesParser().parsebytes(zipfile.ZipFile(wheel).read(name))


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_every_configuration(wheel: Path, source: Path) -> None:
    held = set(names(wheel))
    modules = {str(path.relative_to(source)) for path in (source / "runctl").rglob("*.py")}
    configurations = {f"runctl/{path.relative_to(source)}" for path in (source / "conf").rglob("*.yaml")}
    assert len(configurations) >= 6
    assert modules | configurations | {"runctl/py.typed", "runctl/conf/__init__.py"} <= held


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"runctl"}
    assert {Path(name).suffix for name in names(wheel) if name.startswith("runctl/")} == {
        ".py",
        ".sh",
        ".yaml",
        ".typed",
    }


def test_the_wheel_through_a_source_distribution_is_the_wheel_from_the_tree(
    wheel: Path, source: Path, tmp_path: Path
) -> None:
    assert names(build(source, tmp_path, "--wheel")) == names(wheel)


def test_the_metadata_names_entry_point_python_and_extras(wheel: Path) -> None:
    about = metadata(wheel)
    assert about["Requires-Python"] == ">=3.10"
    assert {"runpod", "drill", "notify", "all"} <= set(about.get_all("Provides-Extra", ()))
    plain = {r.name for r in map(Requirement, about.get_all("Requires-Dist", ())) if r.marker is None}
    assert {"torch", "hydra-core", "omegaconf", "fsspec", "s3fs", "boto3", "pluggy", "psutil", "rich"} <= plain
    assert not {"runpod", "moto", "apprise", "pytest"} & plain
    (entry,) = (name for name in names(wheel) if name.endswith("entry_points.txt"))
    assert "runctl-launch = runctl.launch:main" in zipfile.ZipFile(wheel).read(entry).decode()


@pytest.mark.slow
def test_an_installed_wheel_launches_a_script_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    python = clean_environment(tmp_path / "env", wheel)
    project = tmp_path / "elsewhere"
    project.mkdir()
    (project / "train.py").write_text(SCRIPT)
    command = [python.with_name("runctl-launch"), "trainer=ddp", "trainer.nproc_per_node=2", "script=train.py",
               "args.lr=0.1", "output=json"]  # fmt: skip
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        command, cwd=project, env={**env, "XDG_CONFIG_HOME": str(tmp_path / "no-config")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["state"] == "succeeded"
    package = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")})) / "runctl"
    for rank in (0, 1):
        words = f"rank {rank} {package}/__init__.py ['{package}/conf'] ['--lr=0.1']"
        assert words in done.stderr, done.stderr
    assert str(ROOT / "runctl") not in done.stderr


def clean_environment(folder: Path, wheel: Path) -> Path:
    """A virtual environment with the wheel, which borrows the dependencies but not our editable install.

    A folder named in a .pth file is put on the path, but the .pth files within it are not read: the one of the
    editable install among them.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run(install, check=True, timeout=60)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    asked = subprocess.run(
        [python, "-I", "-c", "import runctl, runctl.conf; print(runctl.__file__, *runctl.conf.__path__)"],
        cwd=folder, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert asked.stdout.split() == [f"{site}/runctl/__init__.py", f"{site}/runctl/conf"]
    return python
