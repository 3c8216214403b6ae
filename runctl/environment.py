"""The plain data of the ranks' Python environment, as the launcher decides on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Environment:
    """In which Python environment the ranks run.

    Attributes:
        kind: `system` is one that the host has; `uv` and `conda` are made from `files`.
        files: relative to the project's root: what it is made from, and behind it what belongs to that.
        digest: SHA-256 of them all.
        python: which versions of Python will do, such as `>=3.10,<3.13`; None is any.
        names_torch: whether the files ask for torch.
        needs_torch: whether the ranks cannot do without.
        torch: the version to install where neither the files nor the host have one; None is none.
        cuda: what the torch of the files was built for, such as `12.8`; None is not known.
    """

    kind: str = "system"
    files: tuple[str, ...] = ()
    digest: str | None = None
    python: str | None = None
    names_torch: bool = False
    needs_torch: bool = False
    torch: str | None = None
    cuda: str | None = None

    @property
    def made(self) -> bool:
        """Whether something may have to be installed for it."""
        return self.kind != "system" or self.torch is not None

    def __str__(self) -> str:
        if self.kind == "system":
            return "the host's own" + (f", with torch {self.torch} where it has none" if self.torch else "")
        return f"{self.files[0]} ({self.kind})"
