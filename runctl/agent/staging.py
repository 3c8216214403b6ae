"""Data on its way to the host before the training and from it afterwards; and what prepares it in between.

A record beside what was brought tells which version of each file is there, so that an unchanged one is not brought
again and a transfer that broke off goes on with the files that are missing.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from runctl.agent.carried import at_once, carried
from runctl.agent.staged import SUFFIX, Record
from runctl.checkpoint.transfer import readable
from runctl.errors import ConfigError, DataError, RunctlError, StorageError
from runctl.spec import Data, Transfer
from runctl.storage import Store, open_store
from runctl.storage.base import Stamp

_AT_ONCE = 8
#: What a disk must have left over beside the data.
_SPARE_BYTES = 64 << 20


class Staging:
    """Carries out the transfers of one attempt.

    Args:
        data: what is brought where.
        workdir: the script's working directory; relative places are looked for there.
        say: takes lines for the user.
    """

    def __init__(self, data: Data, workdir: Path, say: Callable[[str], None]) -> None:
        self._data = data
        self._workdir = workdir
        self._say = say
        self._stop = threading.Event()

    def before(
        self, python: str, env: dict[str, str], meanwhile: Callable[[], None], stopped: Callable[[], bool]
    ) -> None:
        """Bring the inputs, and run what prepares them.

        Args:
            python: the ranks' interpreter.
            env: the variables of what prepares.
            meanwhile: called again and again.
            stopped: whether it is not wanted any more; then it ends soon, without an error.

        Raises:
            RunctlError: if something is not there, does not fit, cannot be brought or fails.
        """

        def work() -> None:
            self._bring_in(self._data.inputs)
            self._prepare(self._data.before_train, python, env)

        if self._data.inputs or self._data.before_train:
            for error in self._carried(work, meanwhile, stopped):
                raise error

    def after(self, meanwhile: Callable[[], None], stopped: Callable[[], bool]) -> str | None:
        """Bring the outputs away.

        Args:
            meanwhile: called again and again.
            stopped: whether there is no time left.

        Returns:
            What went wrong, which has been said; None if nothing did.
        """
        if not self._data.outputs:
            return None
        self._stop.clear()
        told = [str(error) for error in self._carried(lambda: self._bring_out(self._data.outputs), meanwhile, stopped)]
        for line in told:
            self._say(line)
        return told[0] if told else None

    def _carried(
        self, work: Callable[[], None], meanwhile: Callable[[], None], stopped: Callable[[], bool]
    ) -> list[RunctlError]:
        return carried(work, self._stop, meanwhile, stopped)

    def _bring_in(self, transfers: Sequence[Transfer]) -> None:
        """Bring data to this host.

        Raises:
            DataError: if there is none, if it does not fit, or if it cannot be brought.
        """
        for one in transfers:
            target = self._workdir / one.target
            found = self._found(one.source)
            if not found:
                raise DataError(f"data.inputs: there is nothing at {one.source}; it was to be brought to {one.target}")
            record = Record(target)
            missing = {path: stamp for path, stamp in found.items() if not record.has(path, stamp)}
            size = sum(stamp.size_bytes for stamp in missing.values())
            _check_space(target, size, one)
            store, name = self._place(one.source)

            def fetch(path: str, stamp: Stamp, store: Store = store, name: str = name, record: Record = record) -> None:
                to = record.path(path)
                to.parent.mkdir(parents=True, exist_ok=True)
                aside = to.with_name(f".tmp-{to.name}")
                store.get_file(f"{name}/{path}".rstrip("/"), aside, stamp.size_bytes, self._stop)
                aside.replace(to)
                record.note(path, stamp)

            self._all(fetch, missing, record, one)
            self._tell("brought", one, missing, found)

    def _bring_out(self, transfers: Sequence[Transfer]) -> None:
        """Bring data from this host; what is not there is said, for a training that failed may have made nothing.

        Raises:
            DataError: if it cannot be brought.
        """
        for one in transfers:
            source = self._workdir / one.source
            found = self._found(one.source)
            if not found:
                self._say(f"data.outputs: there is nothing at {one.source}; nothing was brought to {one.target}")
                continue
            record = Record(source, of=one.target)
            changed = {path: stamp for path, stamp in found.items() if not record.has(path, stamp)}
            self._all(functools.partial(self._send, *self._place(one.target), record), changed, record, one)
            self._tell("brought", one, changed, found)

    def _prepare(self, commands: Sequence[str], python: str, env: dict[str, str]) -> None:
        """Run `before_train`, one command after the other; their output goes where ours goes.

        Args:
            commands: command lines; one whose first word ends in `.py` runs under `python`.
            python: the ranks' interpreter.
            env: the variables.

        Raises:
            DataError: for the first that fails, with its exit code.
        """
        for line in commands:
            words = shlex.split(line)
            if words[0].endswith(".py"):
                words = [python, "-u", *words]
            self._say(f"before_train: {line}")
            try:
                process = subprocess.Popen(words, cwd=self._workdir, env=env, stdin=subprocess.DEVNULL)
            except OSError as error:
                raise DataError(f"before_train={line}: {error.strerror}: {words[0]}") from error
            while process.poll() is None:
                if self._stop.wait(0.05):
                    process.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(5)
                    process.kill()
                    process.wait()
                    return
            if process.returncode != 0:
                raise DataError(f"before_train={line} failed with exit code {process.returncode}")

    def _send(self, store: Store, name: str, record: Record, path: str, stamp: Stamp) -> None:
        if self._stop.is_set():
            raise InterruptedError(errno.EINTR, "stopped")
        store.put_file(record.path(path), f"{name}/{path}".rstrip("/"))
        record.note(path, stamp)

    def _found(self, place: str) -> dict[str, Stamp]:
        store, name = self._place(place)
        found = store.stamps(name)
        return {path: stamp for path, stamp in found.items() if not path.endswith(SUFFIX)}

    def _place(self, place: str) -> tuple[Store, str]:
        """The store that holds a place, and its name there."""
        place = place.rstrip("/")
        if "://" not in place:
            path = self._workdir / place
            return open_store(str(path.parent)), path.name
        scheme, _, rest = place.partition("://")
        parent, slash, name = rest.rpartition("/")
        if not slash:
            raise ConfigError(f"data: {place} is a whole bucket; name a folder in it, such as {place}/data")
        return open_store(f"{scheme}://{parent}"), name

    def _all(self, carry: Callable[[str, Stamp], None], files: dict[str, Stamp], record: Record, one: Transfer) -> None:
        """Carry files, several at once; what has been carried is kept, whatever happens to the others."""
        jobs = [functools.partial(carry, path, stamp) for path, stamp in files.items()]
        try:
            at_once(jobs, _AT_ONCE, "runctl-staging")
        except (OSError, StorageError) as error:
            if not self._stop.is_set():
                raise DataError(f"data: {one.source} cannot be brought to {one.target}: {error}") from error
        finally:
            record.write()

    def _tell(self, verb: str, one: Transfer, moved: dict[str, Stamp], found: dict[str, Stamp]) -> None:
        size = sum(stamp.size_bytes for stamp in moved.values())
        there = len(found) - len(moved)
        self._say(
            f"{verb} {one.source} to {one.target}: {_files(len(moved))}, {readable(size)}"
            + (f"; {_files(there)} unchanged" if there else "")
        )


def _check_space(target: Path, size_bytes: int, one: Transfer) -> None:
    existing = next(path for path in (target, *target.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size_bytes + _SPARE_BYTES > free:
        raise DataError(
            f"data.inputs: {one.source} has {size_bytes / 1e9:.1f} GB to be brought, and {existing} has "
            f"{free / 1e9:.1f} GB free; name another place with `to`, or a larger disk"
        )


def _files(number: int) -> str:
    return f"{number} file{'' if number == 1 else 's'}"
