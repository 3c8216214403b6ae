"""The training's outputs, brought from a pod that has no object storage to take them to.

The pod's agent puts each into its run directory, as it would put it anywhere; from there it comes to where it belongs
on this machine.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from runctl.checkpoint.progress import ProgressBar
from runctl.checkpoint.transfer import readable
from runctl.platforms.runpod.files import PodFiles
from runctl.platforms.runpod.mirror import Listed
from runctl.platforms.runpod.ssh import Connection
from runctl.spec import LaunchSpec, Transfer

FOLDER = "outputs"


def taken_to(spec: LaunchSpec, run_dir: str) -> LaunchSpec:
    """The spec with every output that is to come to this machine in the run directory on the pod.

    Args:
        spec: as composed.
        run_dir: its path on the pod.
    """
    outputs = tuple(
        one if "://" in one.target else Transfer(one.source, f"{run_dir}/{_place(number, one)}")
        for number, one in enumerate(spec.data.outputs)
    )
    return replace(spec, data=replace(spec.data, outputs=outputs))


class Outputs:
    """Brings them.

    Args:
        connection: to the pod.
        remote: the run directory's path there.
        transfers: as they stand in the spec here.
        workdir: where relative places are looked for.
        bar: shows how far they have come.
        tell: takes lines for the user.
    """

    def __init__(
        self, connection: Connection, remote: str, transfers: Sequence[Transfer], workdir: Path, *, bar: ProgressBar,
        tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._remote = remote
        self._transfers = transfers
        self._workdir = workdir
        self._bar = bar
        self._tell = tell

    def bring(self, listed: Mapping[str, Listed]) -> None:
        """Bring all that lies there.

        Raises:
            PlatformError: if something cannot be brought; the next try goes on from there.
        """
        with contextlib.closing(PodFiles(self._connection)) as files:
            for number, one in enumerate(self._transfers):
                if "://" in one.target:
                    continue
                place = _place(number, one)
                target = self._workdir / one.target
                found = {name: file for name, file in listed.items() if PurePosixPath(name).is_relative_to(place)}
                found = {name: file for name, file in found.items() if not name.endswith(".runctl-staged.json")}
                size, come = sum(file.size_bytes for file in found.values()), 0

                def moved(size_bytes: int, what: str = f"bringing {one.target}", size: int = size) -> None:
                    nonlocal come
                    come += size_bytes
                    self._bar.draw(what, come, size)

                try:
                    for name, file in found.items():
                        relative = PurePosixPath(name).relative_to(place)
                        to = target / relative if relative.parts else target
                        files.get(posixpath.join(self._remote, name), to, size_bytes=file.size_bytes, moved=moved)
                finally:
                    self._bar.clear()
                if found:
                    self._tell(
                        f"brought {one.source} to {one.target}: {len(found)} file{'s' * (len(found) != 1)}, "
                        f"{readable(size)}"
                    )


def _place(number: int, one: Transfer) -> str:
    return f"{FOLDER}/{number}/{PurePosixPath(one.target.rstrip('/')).name}"
