"""The pins: what is installed satisfies every range that we and our dependencies declare, all together."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it along there
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SHIPPED_EXTRAS = {"runpod", "drill", "notify", "all"}


def declared() -> Iterator[Requirement]:
    """What pyproject.toml asks for, the extras included, our own name left out."""
    for text in [
        *PROJECT["dependencies"],
        *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
    ]:
        requirement = Requirement(text)
        if requirement.name != "runctl":
            yield requirement


def wanted_by(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What an installed distribution asks for here, with these extras of its."""
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def closure() -> Iterator[tuple[str, Requirement]]:
    """Who asks for what, from pyproject.toml down to the last dependency."""
    todo: list[tuple[str, Requirement]] = [("runctl", requirement) for requirement in declared()]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        asker, requirement = todo.pop()
        yield asker, requirement
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            todo += [(requirement.name, further) for further in wanted_by(requirement.name, key[1])]


def test_everything_installed_satisfies_every_declared_range_at_once() -> None:
    broken = [
        f"{asker} wants {requirement}, installed is {version}"
        for asker, requirement in closure()
        if (version := importlib.metadata.version(requirement.name)) not in requirement.specifier
        and not requirement.specifier.contains(version, prereleases=True)
    ]
    assert broken == []


def test_s3fs_is_not_the_one_of_2020() -> None:
    (wanted,) = (requirement for requirement in declared() if requirement.name == "s3fs")
    assert not wanted.specifier.contains("0.4.2"), "an open range falls back to it"
    assert Version(importlib.metadata.version("s3fs")) >= Version("2025")
    assert importlib.metadata.version("s3fs") == importlib.metadata.version("fsspec")


def test_boto3_stays_below_what_aiobotocore_allows() -> None:
    (allowed,) = (r for r in wanted_by("aiobotocore", frozenset()) if r.name == "botocore")
    assert allowed.specifier.contains(importlib.metadata.version("botocore"))
    (boto3,) = (requirement for requirement in declared() if requirement.name == "boto3")
    assert any(spec.operator in ("<", "<=", "==", "~=") for spec in boto3.specifier), "an open range breaks s3fs"


def test_the_development_pin_of_torch_is_exact_and_within_our_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {r.name: r for r in map(Requirement, (line for line in lines if line and not line.startswith("#")))}
    (spec,) = pins["torch"].specifier
    assert spec.operator == "=="
    (torch,) = (requirement for requirement in declared() if requirement.name == "torch")
    assert torch.specifier.contains(spec.version)
    assert not torch.specifier.contains("1.13")
    assert Version(importlib.metadata.version("torch")).public == spec.version
    assert re.search(r"pip install .*-c constraints\.txt", (ROOT / "Makefile").read_text())


@pytest.mark.parametrize("extra", sorted(SHIPPED_EXTRAS - {"all"}))
def test_all_takes_in_every_extra(extra: str) -> None:
    (everything,) = map(Requirement, PROJECT["optional-dependencies"]["all"])
    assert everything.name == "runctl"
    assert extra in everything.extras


def test_the_pins_that_were_tried_together_are_the_ones_declared() -> None:
    given = {requirement.name: requirement for requirement in declared()}
    for name in ("torch", "hydra-core", "omegaconf", "fsspec", "s3fs", "boto3"):
        assert given[name].specifier, f"{name} is a dependency of the package itself, with a range"
        assert any(Requirement(text).name == name for text in PROJECT["dependencies"])
    assert str(given["runpod"].specifier) == "==1.12.0"
    assert str(given["moto"].specifier) == "==5.2.5"
    assert given["moto"].extras == {"ec2", "s3", "ssm", "iam"}
