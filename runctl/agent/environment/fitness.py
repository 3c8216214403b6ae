"""Whether torch, its CUDA, this host's driver and its GPUs go together: looked at before ranks start."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from runctl import cuda as cudas
from runctl.errors import EnvironmentFailed

_QUERY = ["--query-gpu=driver_version,compute_cap", "--format=csv,noheader"]
_TIMEOUT_S = 30


def cuda_of(search: Iterable[Path]) -> str | None:
    """What the first torch in these folders was built for; None for the CPU alone, or where it does not say.

    It is read and not imported, which takes seconds.
    """
    for folder in search:
        told = folder / "torch" / "version.py"
        if told.is_file():
            found = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", told.read_text(errors="replace"), re.M)
            return found[1] if found else None
    return None


def gpus() -> tuple[str | None, tuple[int, int] | None]:
    """This host's driver, and the least compute capability of its GPUs; None for what is not known."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return None, None
    try:
        done = subprocess.run([smi, *_QUERY], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    rows = re.findall(r"^\s*(\d+(?:\.\d+)+)\s*,\s*(\d+)\.(\d+)\s*$", done.stdout, re.M)
    if done.returncode != 0 or not rows:
        return None, None
    return rows[0][0], min((int(major), int(minor)) for _, major, minor in rows)


def check(search: Iterable[Path]) -> str | None:
    """Check that the torch that is found in these folders runs on this host's GPUs.

    Returns:
        The CUDA that it was built for.

    Raises:
        EnvironmentFailed: saying which driver, which CUDA, and what to do.
    """
    cuda = cuda_of(search)
    if cuda is None:
        return None
    why = cudas.complaint(cuda, *gpus())
    if why is not None:
        raise EnvironmentFailed(
            f"environment: torch will not run here: {why}. Take a torch that was built for another CUDA "
            "(pytorch.org/get-started/previous-versions), or an image with another driver (platform.ami)"
        )
    return cuda
