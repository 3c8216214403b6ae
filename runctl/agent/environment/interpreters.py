"""The Pythons of this host: which versions, and with which packages, by their metadata and without importing any."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from runctl.errors import EnvironmentFailed

#: Where images for deep learning have theirs: Amazon's newer ones, Amazon's older ones and those of conda, all others.
_PLACES = ("/opt/pytorch/bin/python", "/opt/conda/bin/python", "python3")
_VERSIONS = tuple(f"python3.{minor}" for minor in range(14, 9, -1))
_TIMEOUT_S = 60
_LOOK = """
import importlib.metadata as m, json, os, sys, sysconfig
torch = {}
for name in ("torch", "torchvision", "torchaudio", "triton"):
    try:
        torch[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
json.dump({"version": "%d.%d.%d" % sys.version_info[:3], "abi": str(sysconfig.get_config_var("SOABI")), "torch": torch,
    "home": os.path.realpath(sys.executable),
    "search": [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]}, sys.stdout)
"""
_LIST = """
import importlib.metadata as m, json, os, platform, sys
v = sys.version_info
full = "%d.%d.%d" % v[:3]
found = {}
for d in m.distributions():
    name = d.metadata["Name"]
    if name:
        found.setdefault(name, [d.version, d.requires or []])
json.dump({"packages": found, "markers": {
    "implementation_name": sys.implementation.name, "implementation_version": full, "os_name": os.name,
    "platform_machine": platform.machine(), "platform_release": platform.release(),
    "platform_system": platform.system(), "platform_version": platform.version(), "python_full_version": full,
    "platform_python_implementation": platform.python_implementation(), "python_version": "%d.%d" % v[:2],
    "sys_platform": sys.platform, "extra": ""}}, sys.stdout)
"""


@dataclass(frozen=True)
class Interpreter:
    """One Python of this host.

    Attributes:
        path: as it was found.
        home: the file that it is, behind all links.
        version: such as 3.11.7.
        abi: what compiled packages must be made for.
        family: the versions of torch, and of what is built for it, that it has.
        search: folders of its packages.
    """

    path: str
    home: str
    version: str
    abi: str
    family: dict[str, str] = field(default_factory=dict)
    search: tuple[str, ...] = ()

    @property
    def torch(self) -> str | None:
        """The version of torch that it has, or None."""
        return self.family.get("torch")

    def fits(self, wanted: str | None) -> bool:
        """Whether its version is one of those that will do."""
        if wanted is None:
            return True
        try:
            return SpecifierSet(wanted).contains(self.version, prereleases=True)
        except (InvalidSpecifier, InvalidVersion):
            return False

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])

    def lacks(self, wanted: list[str]) -> list[str]:
        """Which of these requirements it does not have, with all that they need in turn.

        Raises:
            EnvironmentFailed: if it does not tell what it has.
        """
        told = _asked(self.path, _LIST)
        if told is None:
            raise EnvironmentFailed(f"environment: {self.path} does not tell what is installed in it")
        packages: dict[str, Any] = {canonicalize_name(name): found for name, found in told["packages"].items()}
        met: set[tuple[str, str]] = set()
        return [text for text in wanted if not _met(text, packages, told["markers"], met)]


def _met(text: str, packages: dict[str, Any], markers: dict[str, str], met: set[tuple[str, str]]) -> bool:
    """Whether a requirement, and what it needs in turn, is among the packages."""
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        return False
    name = canonicalize_name(wanted.name)
    extras = ["", *sorted(wanted.extras)]
    if wanted.marker is not None and not wanted.marker.evaluate(markers):
        return True
    if wanted.url is not None or name not in packages:
        return False
    version, needed = packages[name]
    if not wanted.specifier.contains(version, prereleases=True):
        return False
    key = (name, ",".join(extras))
    if key in met:
        return True
    met.add(key)
    for one in needed:
        marker = Requirement(one).marker
        if marker is None or any(marker.evaluate({**markers, "extra": extra}) for extra in extras):
            bare = one.partition(";")[0]
            if not _met(bare, packages, markers, met):
                return False
    return True


@functools.cache
def look(path: str) -> Interpreter | None:
    """What one interpreter tells of itself, or None if it is none, or too old."""
    found = shutil.which(path)
    told = None if found is None else _asked(found, _LOOK)
    if found is None or told is None:
        return None
    return Interpreter(found, told["home"], told["version"], told["abi"], told["torch"], tuple(told["search"]))


def image_pythons(wanted: str | None, *, attached: bool) -> list[Interpreter]:
    """The interpreters in which torch may be, in the order in which they are taken, up to the first that will do.

    Args:
        wanted: versions of Python that will do.
        attached: on one's own machine that is the launcher's, on a rented host the image's.
    """
    own = [os.environ.get("RUNCTL_IMAGE_PYTHON", ""), *_PLACES]
    names = [sys.executable, *own] if attached else [*own, sys.executable]
    found: list[Interpreter] = []
    for name in dict.fromkeys(filter(None, names)):
        if (one := look(name)) is not None:
            found.append(one)
            if one.torch and one.fits(wanted):
                break
    return found


def other_pythons() -> list[Interpreter]:
    """All that can be called by their version."""
    found = [look(name) for name in _VERSIONS]
    return [one for one in found if one is not None]


def torch_in(environment: Path) -> str | None:
    """The version of torch that was installed into an environment, or None."""
    for info in environment.glob("lib/python3*/site-packages/torch-*.*-info"):
        return re.sub(r"^torch-|(-py[\d.]+)?\.(dist|egg)-info$", "", info.name)
    return None


def version_in(environment: Path) -> str | None:
    """The minor version of an environment's Python, such as 3.11."""
    for folder in environment.glob("lib/python3*"):
        if found := re.fullmatch(r"python(3\.\d+)", folder.name):
            return found[1]
    return None


def _asked(python: str, program: str) -> Any:
    """What a program prints as JSON under an interpreter that sees nothing of ours; None if it does not run."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            [python, "-I", "-c", program], capture_output=True, timeout=_TIMEOUT_S, check=False, env=env, cwd="/"
        )
        return json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
