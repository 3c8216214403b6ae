"""The line to a pod: SSH as long as its attempt lives, in a thread, so that the launcher hears its user meanwhile.

It waits for an address, is patient with a pod that refuses for a while, brings what the pod needs, starts its keeper,
and then brings what the pod writes. A line that broke is made anew, and nothing is lost by that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import posixpath
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.progress import ProgressBar
from runctl.errors import RunctlError
from runctl.platforms.runpod.files import PodFiles
from runctl.platforms.runpod.keys import KeyPair, PinnedHost
from runctl.platforms.runpod.mirror import Listed, Mirror
from runctl.platforms.runpod.outputs import Outputs
from runctl.platforms.runpod.pulled import PulledCheckpoints
from runctl.platforms.runpod.ssh import Address, Connection, HostKeyChanged, SshError
from runctl.platforms.runpod.start import Place
from runctl.platforms.watching import bring_up_log
from runctl.rundir import RunDir, event_line
from runctl.storage.local import NO_LOCKS

#: Between two rounds, and between two tries (seconds).
_ROUND_S = 1.5
_AGAIN_S = 2.0
#: Tries at what the pod refuses although it answers.
_TRIES = 4
_LOG_BYTES = 256 << 10
#: What a keeper cannot say that went with its container.
_RESTARTED = b'{"why": "its container was started again"}'


@dataclass(frozen=True)
class Mirrored:
    """What is brought from a pod that keeps its run directory itself.

    Attributes:
        rundir: the one here, with the run's spec.
        workdir: where its outputs go that name places on this machine.
    """

    rundir: RunDir
    workdir: Callable[[], Path]


class Line(threading.Thread):
    """The line to one pod.

    Args:
        address: finds it, or None as long as there is none.
        pair: the keys that let us in.
        pinned: the pod's own key.
        rundir: the run directory, as it is seen from here.
        attempt: whose pod.
        start: brings the attempt to it, once; where things lie there.
        mirrored: what is brought from it; None if it writes to object storage.
        tell: takes lines for the user.

    Attributes:
        started: whether its keeper has been started.
        trouble: what is in the way just now, which may pass.
        lost: why nothing more can be said to this pod.
        failed: why it cannot be brought what it needs.
        broken: what its keeper could not do.
        widowed: how its agent ended, which may have had no last word.
        rounds: how often something was brought, or looked for.
    """

    def __init__(
        self, address: Callable[[], Address | None], pair: KeyPair, rundir: RunDir, attempt: int, *,
        pinned: PinnedHost, start: Callable[[Connection], Place], mirrored: Mirrored | None,
        tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        super().__init__(name=f"runctl-pod-a{attempt}", daemon=True)
        self._address = address
        self._pair = pair
        self._pinned = pinned
        self._rundir = rundir
        self._attempt = attempt
        self._start_pod = start
        self._mirrored = mirrored
        self._tell = tell
        self._leave = threading.Event()
        self.started = False
        self.trouble: str | None = None
        self.lost: str | None = None
        self.failed: str | None = None
        self.broken: str | None = None
        self.widowed: str | None = None
        self.rounds = 0

    @property
    def is_mirrored(self) -> bool:
        """Whether the run directory is brought over it."""
        return self._mirrored is not None

    def leave(self) -> None:
        """Say and bring no more; what has not been brought stays on the pod."""
        self._leave.set()

    def run(self) -> None:
        """Carry the attempt to its end; two launchers that follow one run must not both write what comes."""
        folder = None if self._mirrored is None else Path(self._rundir.url)
        try:
            with contextlib.ExitStack() as held:
                if folder is not None:
                    (folder / "hosts").mkdir(parents=True, exist_ok=True)
                    lock = held.enter_context((folder / "hosts" / "mirror.lock").open("w"))
                    while not _is_ours(lock) and not self._leave.wait(_AGAIN_S):
                        self.trouble = f"another launcher brings what {folder.name} writes"
                self._carry_on()
        except Exception as error:  # noqa: BLE001 (a thread that dies in silence would leave the launcher waiting)
            self.failed = f"{type(error).__name__}: {error}"

    def _carry_on(self) -> None:
        refused = 0
        while not self._leave.is_set():
            try:
                if self._once():
                    return
            except HostKeyChanged as error:
                self.lost = str(error)
                return
            except SshError as error:
                self.trouble = str(error)
            except (RunctlError, OSError, ValueError) as error:
                self.trouble = str(error)
                refused += 1
                if refused >= _TRIES and not self.started:
                    self.failed = self.trouble
                    return
            self._leave.wait(_AGAIN_S)

    def _once(self) -> bool:
        """As long as one connection holds; whether there is nothing more to do."""
        address = self._address()
        if address is None:
            return False
        with Connection(address, self._pair, self._pinned) as connection:
            place = self._start_pod(connection)
            restarted = place.started and not place.kept
            self.started, self.trouble = True, None
            with contextlib.ExitStack() as held:
                look = self._looking(connection, place, held)
                files = held.enter_context(contextlib.closing(PodFiles(connection)))
                while not self._leave.is_set():
                    # Looked for first: what was written before the end is brought once more after it.
                    ended = self._read(files, posixpath.join(place.home, "ended.json"))
                    if restarted and ended is None:
                        ended = _RESTARTED
                    if look() or (ended is not None and self._has_ended(json.loads(ended), files, place)):
                        # The pod need not wait for us any longer.
                        files.put(b"", posixpath.join(place.home, "collected"))
                        self.rounds += 1
                        return True
                    self.rounds, self.trouble = self.rounds + 1, None
                    self._leave.wait(_ROUND_S)
        return True

    def _looking(self, connection: Connection, place: Place, held: contextlib.ExitStack) -> Callable[[], bool]:
        """What a round does; it says whether the attempt has ended and all of it is here."""
        if self._mirrored is None:
            return lambda: False
        spec, workdir = self._mirrored.rundir.read_spec(), self._mirrored.workdir()
        mirror = held.enter_context(contextlib.closing(Mirror(connection, place.run_dir, self._rundir, self._attempt)))
        bar = ProgressBar(attached=True)
        outputs = Outputs(connection, place.run_dir, spec.data.outputs, workdir, bar=bar, tell=self._tell)
        pulled: PulledCheckpoints | None = None
        if spec.checkpoint.url is None:
            pulled = PulledCheckpoints(
                connection, place.run_dir, Catalog(Path(self._rundir.url) / "checkpoints"), spec.checkpoint.retention,
                arrived=self._note_arrival, bar=bar, tell=self._tell,
            )  # fmt: skip
            held.callback(pulled.close)
            held.callback(connection.close)  # first: what is on its way ends with it

        def besides(listed: dict[str, Listed], ended: bool) -> list[int] | None:
            steps = None if pulled is None else pulled.look(listed, wait=ended)
            if ended:
                outputs.bring(listed)
            return steps

        return lambda: mirror.round(besides).ended

    def _note_arrival(self, step: int) -> None:
        events = self._rundir.event_stream("launcher")
        events.append(event_line("checkpoint_pulled", attempt=self._attempt, step=step))
        events.close()

    def _has_ended(self, told: dict[str, Any], files: PodFiles, place: Place) -> bool:
        """What became of a keeper that has ended although its agent has not said so."""
        if told.get("bring_up_error") is not None:
            log = self._read(files, posixpath.join(place.home, "bring-up.log")) or b""
            self._rundir.store.write(bring_up_log(self._attempt), log)
            self.broken = str(told["bring_up_error"])
        else:
            self.widowed = told.get("why") or f"its agent ended with code {told.get('agent_exit_code')}"
        return True

    @staticmethod
    def _read(files: PodFiles, name: str) -> bytes | None:
        try:
            size = files.size_of(name)
            if size is None:
                return None
            return b"".join(files.read(name, max(0, size - _LOG_BYTES), size))
        except FileNotFoundError:
            return None


def _is_ours(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True
