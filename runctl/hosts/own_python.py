"""An interpreter with what runctl itself needs, where nothing of ours is installed but perhaps much else.

    python3 -m runctl.hosts.own_python FOLDER ARGS…

becomes this interpreter with the arguments, if it has all that the wheel beside FOLDER needs; otherwise one of an
environment in FOLDER, made the first time, which has the rest.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runctl.hosts.keeper import MORE, requirements

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: Stands in an environment that is whole.
_WHOLE = "runctl-whole"


def lacking(needed: Sequence[str]) -> list[str]:
    """Which of these requirements this interpreter does not meet; all of them where it cannot tell."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return list(needed)
    return [one for one in needed if not _met(Requirement(one))]


def _met(wanted: Requirement) -> bool:
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    try:
        return wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def made(folder: Path, needed: Sequence[str]) -> str:
    """An environment's interpreter; the environment also has what this interpreter has.

    Raises:
        SystemExit: if it cannot be made, after saying what to do.
    """
    python = str(folder / "bin" / "python")
    if (folder / _WHOLE).exists():
        return python
    pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet", *needed]
    for words in ([sys.executable, "-m", "venv", "--clear", "--system-site-packages", str(folder)], pip):
        if (code := subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode) != 0:
            sys.exit(
                f"runctl: no environment could be made for the agent: {' '.join(words)} ended with code {code}; "
                f"{sys.executable} needs venv and a way to PyPI, or have all of this in the image: {', '.join(needed)}"
            )
    (folder / _WHOLE).touch()
    return python


def main() -> None:
    """Become the interpreter of the command line."""
    folder, *words = sys.argv[1:]
    wheel = next(Path(folder).parent.glob("runctl-*.whl"), None)
    needed = requirements(wheel, os.environ.get(MORE, "")) if wheel is not None else []
    python = made(Path(folder), needed) if lacking(needed) else sys.executable
    os.execv(python, [python, *words])


if __name__ == "__main__":
    main()
