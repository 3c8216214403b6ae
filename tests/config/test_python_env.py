"""Which environment the ranks get, by what the project has."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from runctl.config.environments import environment
from runctl.config.schemas import DockerConfig, LaunchConfig, PythonEnv, TrainerConfig, TrainerKind
from runctl.environment import Environment, note
from runctl.errors import ConfigError
from runctl.platforms.aws.options import AwsConfig
from runctl.spec import Program

LOCK = """
version = 1
requires-python = ">=3.11"

[[package]]
name = "nvidia-cuda-runtime-cu12"
version = "12.8.90"
source = { registry = "https://pypi.org/simple" }

[[package]]
name = "torch"
version = "2.7.1"
source = { registry = "https://pypi.org/simple" }
"""
PROJECT = (
    '[project]\nname = "bird"\nversion = "0"\nrequires-python = ">=3.10"\ndependencies = ["numpy", "torch>=2.4"]\n'
)


class Project:
    """A project in a folder, in which somebody stands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, **files: str) -> Project:
        for name, text in files.items():
            path = self.folder / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return self

    def environment(
        self, wanted: str = "auto", script: str = "import torch\n", *, stands: str = ".", asked: bool = False,
        ddp: bool = False, image: str | None = None, **platform: Any,
    ) -> Environment:  # fmt: skip
        cfg = LaunchConfig(python_env=PythonEnv[wanted], platform=AwsConfig(**platform), docker=DockerConfig(image))
        cfg.trainer = TrainerConfig(kind=TrainerKind.ddp if ddp else TrainerKind.single)
        workdir = self.folder / stands
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "train.py").write_text(script)
        return environment(cfg, Program("train.py", None), workdir, self.folder, asked=asked)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_lock_goes_before_requirements_before_a_project_before_condas(project: Project) -> None:
    project.has(environment_yml="dependencies: [python, pytorch=2.5.1]\n")
    assert project.environment().kind == "conda"
    project.has(pyproject_toml=PROJECT)
    assert project.environment().files == ("pyproject.toml",)
    project.has(requirements_txt="torch==2.6.0\n")
    assert project.environment().files == ("requirements.txt",)
    project.has(uv_lock=LOCK)
    assert project.environment().files == ("uv.lock", "pyproject.toml")


def test_the_nearest_goes_first_but_a_workspaces_lock_is_its_members(project: Project) -> None:
    project.has(uv_lock=LOCK, pyproject_toml=PROJECT, demo__requirements_txt="numpy\n", member__pyproject_toml=PROJECT)
    assert project.environment(stands="demo").files == ("demo/requirements.txt",)
    assert project.environment(stands="member").files == ("uv.lock", "member/pyproject.toml")
    assert project.environment(stands="elsewhere").files == ("uv.lock", "pyproject.toml")


def test_a_project_that_only_configures_tools_asks_for_nothing(project: Project) -> None:
    project.has(pyproject_toml="[tool.ruff]\nline-length = 120\n")
    found = project.environment()
    assert (found.kind, found.files) == ("system", ())
    assert found.torch is not None, "auto installs the launcher's where the image has none"


def test_what_the_lock_says_of_torch_cuda_and_python(project: Project) -> None:
    found = project.has(uv_lock=LOCK, pyproject_toml=PROJECT).environment()
    assert (found.names_torch, found.cuda, found.python) == (True, "12.8", ">=3.11")
    found = project.has(**{"_python-version": "3.12\n"}).environment()
    assert found.python == "==3.12.*"


@pytest.mark.parametrize(
    ("text", "names", "cuda"),
    [
        ("torch\n", True, None),
        ("torch==2.7.1+cu128\n", True, "12.8"),
        ("torch>=2.4 ; python_version > '3.9'\n", True, None),
        ("torch==2.7.1\nnvidia-cuda-runtime-cu12==12.6.77\n", True, "12.6"),
        ("torchvision\ntorch-geometric\ntorch_scatter\n# torch\n", False, None),
    ],
)
def test_what_requirements_say_of_torch(project: Project, text: str, names: bool, cuda: str | None) -> None:
    found = project.has(requirements_txt=text).environment()
    assert (found.names_torch, found.cuda) == (names, cuda)


def test_included_requirements_count(project: Project) -> None:
    before = project.has(requirements_txt="-r more.txt\n", more_txt="torch==2.6.0\n").environment()
    assert before.files == ("requirements.txt", "more.txt")
    assert before.names_torch
    after = project.has(more_txt="torch==2.6.1\n").environment()
    assert before.digest != after.digest


@pytest.mark.parametrize(
    ("script", "needs"),
    [
        ("import torch", True),
        ("import os, torch.nn as nn", True),
        ("    from lightning import Trainer", True),
        ("import numpy", False),
        ("print('import torch')", False),
    ],
)
def test_torch_is_needed_by_ranks_of_torchrun_and_scripts_that_import_it(
    project: Project, script: str, needs: bool
) -> None:
    assert project.environment(script=script).needs_torch is needs
    assert project.environment(script=script, ddp=True).needs_torch


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("uv", r"python_env=uv: there is no uv.lock, requirements.txt or a pyproject.toml .* \(uv lock writes it\)"),
        ("conda", r"python_env=conda: there is no environment.yml .* \(conda env export --from-history writes it\)"),
    ],
)
def test_a_kind_without_its_file_says_what_to_add(project: Project, wanted: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        project.environment(wanted)


def test_an_interpreter_that_is_named_is_taken_as_it_is(project: Project) -> None:
    project.has(uv_lock=LOCK)
    assert project.environment(python="/usr/bin/python3") == Environment()
    with pytest.raises(ConfigError, match=r"platform\.python=/usr/bin/python3 and python_env=uv"):
        project.environment("uv", asked=True, python="/usr/bin/python3")
    assert project.environment("system", asked=True, python="/usr/bin/python3") == Environment()


@pytest.mark.parametrize(
    "image",
    [
        "python:3.12", "pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime", "nvcr.io/nvidia/pytorch:25.06-py3",
        "localhost:5000/me/trainer", "123456789012.dkr.ecr.us-east-1.amazonaws.com/trainer@sha256:" + "0af1" * 16,
    ],
)  # fmt: skip
def test_a_container_has_what_is_in_its_image_and_nothing_of_the_projects(project: Project, image: str) -> None:
    project.has(uv_lock=LOCK)
    found = project.environment("docker", image=image)
    assert found == Environment("docker", needs_torch=True, image=image)
    assert not found.made
    assert str(found) == f"docker image {image}"


def test_what_cannot_be_with_a_container_is_told(project: Project) -> None:
    with pytest.raises(ConfigError, match=r"python_env=docker: name the image, such as docker\.image=pytorch"):
        project.environment("docker")
    for image in ("", "-v/:/host", "a b", "a;b", "a:b:c", "a\nb", "/a", "a/"):
        with pytest.raises(ConfigError, match=r"docker\.image=(?s:.*): no image is called so; such as pytorch"):
            project.environment("docker", image=image)
    with pytest.raises(ConfigError, match=r"platform\.python=/x and python_env=docker: .* in an image; give one"):
        project.environment("docker", asked=True, image="a", python="/x")


def test_a_container_is_had_where_the_platform_starts_one(desk: Any) -> None:
    container = ("script=train.py", "python_env=docker", "docker.image=me/trainer:1")
    assert "platform=local starts no containers, platform=aws does" in desk.refusal(*container)
    assert "which no container reaches" in desk.refusal(*container, "+platform=aws", "drill=spot")
    told = desk.refusal("script=train.py", "+platform=aws", "docker.image=me/trainer:1", "dry_run=true")
    assert told.startswith("docker.image=me/trainer:1 and python_env=auto: add python_env=docker")
    assert "docker has image" in desk.refusal(*container, "docker.imag=x", "+platform=aws")
    desk.project("docker: {image: me/trainer:1}")
    assert notes(desk) == [], "a project may name it for the launches that want it"
    plan = desk.plan("script=train.py", "+platform=aws", "python_env=docker")["plan"]
    (told,) = (one for one in plan["notes"] if one.startswith("environment: "))
    assert "docker-python.tar.gz" in [file["name"] for file in plan["requests"][-1]["orders"]["files"]]
    assert told == "environment: docker image me/trainer:1; its torch and CUDA: unknown before the host is up"


def test_the_plan_says_what_it_will_be_and_what_is_not_known(desk: Any) -> None:
    (desk.folder / "uv.lock").write_text(LOCK)
    (desk.folder / "train.py").write_text("import torch\n")
    (told,) = notes(desk, "+platform=aws")
    assert told.startswith("environment: uv.lock (uv), cached by ")
    assert told.endswith("torch for CUDA 12.8, the image's driver must be 525.60.13 or newer")
    (told,) = notes(desk, "+platform=aws", "platform.python=/opt/own/bin/python")
    assert told == "environment: /opt/own/bin/python on the host, as it is"
    (told,) = notes(desk, "+platform=aws", "python_env=system")
    assert told.endswith("which torch and CUDA it has: unknown before the host is up")
    assert notes(desk) == [], "here the launcher's own Python trains"
    refused = desk.refusal("script=train.py", "+platform=aws", "platform.python=/x", "python_env=uv", "dry_run=true")
    assert "give one of them" in refused


def notes(desk: Any, *words: str) -> list[str]:
    plan = desk.plan("script=train.py", *words)["plan"]
    return [one for one in plan["notes"] if one.startswith("environment: ")]


@pytest.mark.parametrize(
    ("cuda", "capability", "why"),
    [
        ("12.6", (12, 0), "needs CUDA 12.8 or newer, and torch was built for 12.6"),
        ("12.8", (12, 0), None),
        ("12.6", (8, 9), None),
        ("13.0", (7, 0), "CUDA 13.0 and newer know a GPU of compute capability 7.0 no more"),
        ("13.0", (7, 5), None),
    ],
)
def test_a_gpu_that_the_cuda_does_not_know_is_told_in_the_plan(
    cuda: str, capability: tuple[int, int], why: str | None
) -> None:
    told = note(Environment("uv", ("uv.lock",), "0" * 64, names_torch=True, cuda=cuda), None, [capability])
    assert ("it will not run" in told) is (why is not None)
    assert (why or "or newer") in told
