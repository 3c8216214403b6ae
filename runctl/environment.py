"""The plain data of the ranks' Python environment, as the launcher decides on it, and what a plan says of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runctl import cuda as cudas


@dataclass(frozen=True)
class Environment:
    """In which Python environment the ranks run.

    Attributes:
        kind: `system` is one that the host has; `uv` and `conda` are made from `files`; `docker` is in `image`.
        files: relative to the project's root: what it is made from, and behind it what belongs to that.
        digest: SHA-256 of them all.
        python: which versions of Python will do, such as `>=3.10,<3.13`; None is any.
        names_torch: whether the files ask for torch.
        needs_torch: whether the ranks cannot do without.
        torch: the version to install where neither the files nor the host have one; None is none.
        cuda: what the torch of the files was built for, such as `12.8`; None is not known.
        image: of the container in which all of it runs; None is no container.
    """

    kind: str = "system"
    files: tuple[str, ...] = ()
    digest: str | None = None
    python: str | None = None
    names_torch: bool = False
    needs_torch: bool = False
    torch: str | None = None
    cuda: str | None = None
    image: str | None = None

    @property
    def made(self) -> bool:
        """Whether something may have to be installed for it."""
        return bool(self.files) or self.torch is not None

    def __str__(self) -> str:
        if self.kind == "docker":
            return f"docker image {self.image}"
        if self.kind == "system":
            return f"torch {self.torch}" if self.torch else "the image's Python"
        return f"{self.files[0]} ({self.kind})"


def note(environment: Environment, python: str | None, capabilities: Iterable[tuple[int, int]]) -> str:
    """One line for a plan: which environment, how its torch gets there, and what is not known yet.

    Args:
        environment: as it was decided on.
        python: an interpreter that was named instead, or None.
        capabilities: compute capabilities of the GPUs that may be rented, as far as they are known.
    """
    if python is not None:
        return f"environment: {python} on the host, as it is"
    if environment.kind == "docker":
        return f"environment: {environment}; its torch and CUDA: unknown before the host is up"
    if environment.kind == "system":
        otherwise = f", and torch {environment.torch} is installed if it has none" if environment.torch else ""
        return f"environment: the image's Python{otherwise}; which torch and CUDA it has: unknown before the host is up"
    said = f"environment: {environment}, cached by {str(environment.digest)[:8]}…"
    if not environment.names_torch:
        return f"{said}; torch is the image's" + (f", or {environment.torch}" if environment.torch else "")
    if environment.cuda is None:
        return f"{said}; the CUDA of its torch: unknown before the host is up"
    for capability in capabilities:
        if (why := cudas.complaint(environment.cuda, None, capability)) is not None:
            return f"{said}; it will not run: {why}"
    driver = cudas.driver_for(environment.cuda) or "unknown"
    return f"{said}; torch for CUDA {environment.cuda}, the image's driver must be {driver} or newer"
