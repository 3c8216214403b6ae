"""The agent's eye on a script that knows nothing of us: what it writes under `checkpoint.watch` becomes checkpoints.

A thread looks every fifth of a second, and more often at what is being written. What is closed, unchanged and whole is
copied and published; when the ranks have ended it looks once more.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import psutil

from runctl import __version__, command
from runctl.agent.metrics import MetricsLog
from runctl.checkpoint import manifest as manifests
from runctl.checkpoint import watch, watched
from runctl.checkpoint.catalog import Catalog, Found
from runctl.checkpoint.manifest import Manifest
from runctl.checkpoint.watch import Candidate, Stamp, Unit
from runctl.errors import CheckpointCorrupt, CheckpointError
from runctl.spec import LaunchSpec

#: Tells a script what to resume from, absolute; not set where there is nothing.
RESUME_ENV = "RUNCTL_RESUME_FROM"
_LOOK_S = 0.2
_SOON_S = 0.02
#: Looking takes at most one part in so many of a processor, however many files there are, and of the time that passes:
#: a slow disk is spared as well, but one look that lost its processor to the training does not blind for long.
_SHARE = 50
_SHARE_OF_TIME = 4
#: How long files must lie unchanged. A single file that tells by its structure that it is whole, where the system
#: tells who has it open, only until the clock of its file system has ticked, so that the next write shows.
_TICK_NS = 20_000_000
_SETTLE_S = 2.0
_NICE = 10
_STEPS_KEPT = 3000  # ten minutes of looks


class Watcher:
    """Picks up the checkpoints of a script that writes them by itself.

    Args:
        spec: what runs.
        attempt: its number.
        nproc: ranks on this host.
        workdir: the script's working directory, absolute.
        catalog: the run's checkpoints.
        metrics: tell the step at which a file was written.
    """

    def __init__(
        self, spec: LaunchSpec, attempt: int, nproc: int, *, workdir: Path, catalog: Catalog, metrics: MetricsLog
    ) -> None:
        self._spec = spec
        self._attempt = attempt
        self._nproc = nproc
        self._workdir = workdir
        self._catalog = catalog
        self._metrics = metrics
        self._steps: deque[tuple[int, int]] = deque(maxlen=_STEPS_KEPT)
        self._foreign: dict[str, Stamp] = {}
        self._done: dict[str, Stamp] = {}
        self._since: dict[str, tuple[Stamp, float]] = {}
        self._shapes: set[frozenset[str]] = set()
        self._rewritten: set[str] = set()
        self._said: str | None = None
        self._pause_s = 0.0
        self._clean: bool | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runctl-watcher", daemon=True)

    def put_back(self, found: Found | None) -> tuple[dict[str, str], list[str]]:
        """Put the files of a watched checkpoint back where the script had written them.

        Args:
            found: what this attempt begins from.

        Returns:
            Variables and words that tell the script; none of either if there is nothing that it wrote itself.

        Raises:
            CheckpointError: if they cannot be put there.
        """
        if found is None or found.manifest.watched is None:
            return {}, []
        try:
            path = watched.put_back(found.path, found.manifest, self._workdir, _say)
            watched.set_aside_broken(self._workdir, self._units(), found.manifest, _say)
        except OSError as error:
            raise CheckpointError(f"{found.path}: its files cannot be put back: {error}") from error
        return {RESUME_ENV: str(path)}, command.resume_words(self._spec.checkpoint, str(path))

    def start(self, found: Found | None) -> None:
        """Begin to watch, if there is something to watch. What lies there already is not of this attempt.

        Args:
            found: what this attempt begins from; its files are ours, and known.
        """
        if self._spec.checkpoint.watch is None:
            return
        restored = found.manifest.watched.paths if found and found.manifest.watched else []
        for unit in self._units():
            (self._done if unit.path in restored else self._foreign).update(unit.files)
        for step in self._catalog.steps():
            with contextlib.suppress(CheckpointCorrupt):
                kept = manifests.read(self._catalog.path(step))
                if kept.watched is not None:
                    self._shapes.add(watched.shape(kept))
        self._thread.start()

    def finish(self, *, clean: bool) -> None:
        """Look a last time, now that whoever writes is gone; `working` tells until when.

        Args:
            clean: whether the script came to its end by itself, so that nothing broke off in the middle.
        """
        self._clean = clean
        self._ended.set()

    @property
    def working(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        # The training comes first. (Linux gives threads their own niceness.)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._ended.wait(self._pause_s):
            self._look(self._is_complete)
        self._look(self._was_completed)

    def _look(self, complete: Callable[[Candidate], bool]) -> None:
        """Take in what is new and complete."""
        began, pause_due = time.monotonic(), _pause_due()
        if self._metrics.step is not None:
            self._steps.append((time.time_ns(), self._metrics.step))
        try:
            found = [unit for unit in self._units() if not self._is_foreign(unit)]
        except OSError as error:
            self._pause_s = _LOOK_S
            self._complain(f"checkpoint.watch: {error}")
            return
        self._note(found)
        new = [one for one in watch.candidates(found) if any(self._done.get(n) != s for n, s in one.files.items())]
        # Between two overwrites there may be little time: what was written just now is soon looked at again.
        soon = any(began - self._since[name][1] < _SETTLE_S for one in new for name in one.files)
        self._pause_s = max(_SOON_S if soon else _LOOK_S, pause_due())
        for candidate in new:
            began, pause_due = time.monotonic(), _pause_due()
            try:
                if complete(candidate):
                    self._keep(candidate)
                else:
                    self._pause_s = max(self._pause_s, pause_due())
            except (watched.Changed, FileNotFoundError):
                self._pause_s = max(self._pause_s, time.monotonic() - began)  # copied in vain: not without a pause
            except Exception as error:  # noqa: BLE001 (whatever a script writes, the next file must be looked at)
                self._pause_s = _LOOK_S
                self._complain(f"{candidate.resume_path} is not kept as a checkpoint: {error}")

    def _is_complete(self, candidate: Candidate) -> bool:
        """Whether its writer, who lives, is done with it."""
        files = candidate.files
        settled = time.monotonic() - max(self._since[name][1] for name in files) >= _SETTLE_S
        alone = len(files) == 1 and sys.platform == "linux"
        if not settled and not (alone and time.time_ns() - candidate.written_ns > _TICK_NS):
            return False
        whole = [watch.whole(self._workdir, unit) for unit in candidate.units]
        if False in whole or (None in whole and not settled) or self._is_short(candidate):
            return False
        pids = [child.pid for child in psutil.Process().children(recursive=True)]
        return not watch.open_for_writing(pids, files.values())

    def _was_completed(self, candidate: Candidate) -> bool:
        """Whether its writer, who is gone, was done with it; what does not tell is believed after a clean end."""
        whole = [watch.whole(self._workdir, unit) for unit in candidate.units]
        return False not in whole and (bool(self._clean) or (None not in whole and not self._is_short(candidate)))

    def _is_short(self, candidate: Candidate) -> bool:
        """Whether it lacks files that another checkpoint of this run has: the writer may be at them yet."""
        shape = watch.shape(candidate.files)
        return any(shape < other for other in self._shapes)

    def _keep(self, candidate: Candidate) -> None:
        step = self._step_of(candidate)
        latest = dict(self._metrics.latest)
        watched.keep(
            candidate,
            self._workdir,
            self._catalog.folder,
            Manifest(
                run_id=self._spec.run.id,
                attempt=self._attempt,
                step=step,
                epoch=0,
                world_size=self._nproc,
                hash=manifests.best_hash(),
                files={},
                versions={"runctl": __version__},
                metrics={name: value for name, value in latest.items() if not isinstance(value, str)},
            ),
        )
        self._done.update(candidate.files)
        self._shapes.add(watch.shape(candidate.files))
        self._rewritten.update(unit.path for unit in candidate.units if not unit.is_folder)
        self._said = None
        self._catalog.prune(self._spec.checkpoint.retention)

    def _step_of(self, candidate: Candidate) -> int:
        """A step beyond all there are, so that the checkpoint written last is the newest.

        The number in its name, unless that is part of a name which is written over and over; else the step that
        the metrics told of when it was written.
        """
        steps = self._catalog.steps()
        newest = steps[-1] if steps else -1
        number = candidate.number
        if self._rewritten.issuperset(candidate.paths):
            number = None
        if number is not None and (number > newest or (number in steps and self._is_of(number, candidate))):
            return number
        told = next((step for at, step in reversed(self._steps) if at <= candidate.written_ns), 0)
        return max(told, newest + 1, 1)

    def _is_of(self, step: int, candidate: Candidate) -> bool:
        told = manifests.read(self._catalog.path(step)).watched
        return told is not None and set(told.paths) <= set(candidate.paths)

    def _units(self) -> list[Unit]:
        pattern = self._spec.checkpoint.watch
        return watch.units(self._workdir, pattern, self._is_runctls) if pattern else []

    def _is_runctls(self, path: Path) -> bool:
        """Whether it is a checkpoint of ours, of whatever run: a glob such as `**/*.pt` finds those too."""
        if path.is_relative_to(self._catalog.folder):
            return True
        root = Path(self._spec.run.root)
        parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
        return len(parts) > 1 and (root / parts[0] / "spec.json").exists()

    def _is_foreign(self, unit: Unit) -> bool:
        return all(self._foreign.get(name) == stamp for name, stamp in unit.files.items())

    def _note(self, found: list[Unit]) -> None:
        """Note since when each file has been as it is."""
        now = time.monotonic()
        before, self._since = self._since, {}
        for unit in found:
            for name, stamp in unit.files.items():
                known = before.get(name)
                self._since[name] = known if known is not None and known[0] == stamp else (stamp, now)

    def _complain(self, text: str) -> None:
        if text != self._said:
            self._said = text
            _say(text)


def _pause_due() -> Callable[[], float]:
    """From now on, how long to pause for what this thread has done, in seconds."""
    began, began_cpu = time.monotonic(), time.thread_time()
    return lambda: max(
        (time.thread_time() - began_cpu) * (_SHARE - 1), (time.monotonic() - began) * (_SHARE_OF_TIME - 1)
    )


def _say(text: str) -> None:
    sys.stderr.write(f"runctl: {text}\n")
