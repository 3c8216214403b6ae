"""What is to be made of what the project asks for and the host has, and the key under which it is kept (pure)."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from runctl.agent.environment.interpreters import Interpreter
from runctl.environment import Environment

#: Grows when what is made of the same files changes.
_SCHEMA = 1


@dataclass(frozen=True)
class Recipe:
    """How one environment is made.

    Attributes:
        python: the Python that it is made with; None is one that is fetched, as `request` says.
        request: versions that will do.
        lender: the interpreter whose torch is used where the environment gets none of its own, or None.
        lent: packages that are not installed because the lender has them.
        key: names what comes out, the same wherever it would be the same.
    """

    python: Interpreter | None
    request: str
    lender: Interpreter | None
    lent: tuple[str, ...] = ()
    key: str = field(default="")


def recipe(
    wanted: Environment,
    image: Sequence[Interpreter],
    others: Callable[[], Sequence[Interpreter]],
    packages: Sequence[str] = (),
) -> Recipe:
    """What to make.

    Args:
        wanted: the project's.
        image: interpreters in which torch may be, the best first.
        others: tells all that are called by their version, if none of the image's will do.
        packages: the requirements, where they are known one by one.
    """
    lender = next((one for one in image if one.torch and (wanted.kind == "conda" or one.fits(wanted.python))), None)
    python = lender or next((one for one in image if one.fits(wanted.python)), None)
    python = python or next((one for one in others() if one.fits(wanted.python)), None)
    lent = () if lender is None else lendable(lender, packages)
    if packages and lender is not None and "torch" not in lent:
        lender = None  # the project has a torch of its own, and what the image has beside its torch fits only that
        lent = ()
    told = [
        _SCHEMA, wanted.kind, wanted.files[:1], wanted.digest, wanted.python, wanted.needs_torch, wanted.torch,
        None if python is None or wanted.kind == "conda" else (python.home, python.version, python.abi),
        None if lender is None else (lender.search, lender.family),
        sys.platform, platform.machine(), platform.libc_ver(),
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
    return Recipe(python, wanted.python or ">=3.10", lender, lent, key)


def lendable(lender: Interpreter, packages: Sequence[str]) -> tuple[str, ...]:
    """Which of torch and what is built for it the lender has in a version that the requirements allow."""
    refused = set()
    for text in packages:
        try:
            one = Requirement(text)
        except InvalidRequirement:
            continue
        name = canonicalize_name(one.name)
        if name in lender.family and (one.url or not one.specifier.contains(lender.family[name], prereleases=True)):
            refused.add(name)
    return tuple(name for name in lender.family if name not in refused)
