"""What jobs leave behind for the process that began the sweep, when another launcher carries them out elsewhere."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runctl.sweeps.job import Job
    from runctl.sweeps.turn import Common


class Notes:
    """A folder with a file for each job.

    Args:
        folder: of this user's alone, on a file system that all of them share.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def leave(self, number: int, common: Common, job: Job) -> None:
        """Say what became of a job."""
        self._write(number, (common, job))

    def leave_code(self, number: int, code: int) -> None:
        """Say with which exit code a job ended that came to no run."""
        self._write(number, code)

    def read(self) -> list[int | tuple[Common, Job]]:
        """What was left, in the order of the jobs."""
        files = sorted(self._folder.glob("*.job"), key=lambda file: int(file.stem))
        return [pickle.loads(file.read_bytes()) for file in files]

    def _write(self, number: int, left: int | tuple[Common, Job]) -> None:
        aside = self._folder / f"{number}.tmp"
        aside.write_bytes(pickle.dumps(left))
        aside.replace(self._folder / f"{number}.job")
