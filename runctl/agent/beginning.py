"""What an attempt begins from: the newest checkpoint of its run that verifies and loads, or one of another run."""

from __future__ import annotations

import threading
from collections.abc import Callable

from runctl.checkpoint import origin
from runctl.checkpoint.catalog import Catalog, Found
from runctl.checkpoint.remote import RemoteCatalog
from runctl.checkpoint.restore import Restore
from runctl.checkpoint.transfer import Transfer
from runctl.errors import CheckpointError
from runctl.spec import CheckpointPolicy

_LOOK_S = 0.05


class RestoreStopped(CheckpointError):
    """A stop came while a checkpoint was being brought."""


class Beginning:
    """Finds it, and brings it to this host.

    Args:
        policy: what the run wants to begin from.
        local: the checkpoints of the run on this host.
        remote: those elsewhere, or None.
        say: takes what people should know.
        look: called again and again while a checkpoint is brought, with how far it has come.

    Attributes:
        durable: steps of the checkpoints elsewhere, once it has looked.
    """

    def __init__(
        self, policy: CheckpointPolicy, local: Catalog, remote: RemoteCatalog | None, say: Callable[[str], None],
        look: Callable[[Transfer], None],
    ) -> None:  # fmt: skip
        self._policy = policy
        self._local = local
        self._remote = remote
        self._say = say
        self._look = look
        self._transfer = Transfer()
        self.durable: list[int] = []

    def find(self, stopped: Callable[[], bool], skip: frozenset[int]) -> Found | None:
        """The checkpoint to begin from; None for a begin at step 0.

        What comes from elsewhere is brought in a thread, so that a stop is heard meanwhile.

        Args:
            stopped: whether a stop has come; asked again and again.
            skip: steps of checkpoints that did not load.

        Raises:
            CheckpointError: if there are checkpoints and none is usable, or if one is required and there is none.
            StorageError: if the storage cannot be read.
            RestoreStopped: if a stop came meanwhile.
        """
        if self._remote is None and self._policy.origin is None:
            return self._find(skip, threading.Event())
        stop = threading.Event()
        result: list[Found | None] = []
        errors: list[BaseException] = []

        def find() -> None:
            try:
                result.append(self._find(skip, stop))
            except BaseException as error:  # noqa: BLE001 (it goes on in the main thread)
                errors.append(error)

        thread = threading.Thread(target=find, name="runctl-restore", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK_S)
            self._look(self._transfer)
            if stopped():
                stop.set()
                raise RestoreStopped("stopped while a checkpoint was being brought")
        if errors:
            raise errors[0]
        return result[0]

    def _find(self, skip: frozenset[int], stop: threading.Event) -> Found | None:
        resume, remote = self._policy.resume, self._remote
        if resume == "never":
            return None
        found = self._own(skip, stop)
        if remote is not None:
            self.durable = remote.steps()
        if found is None and self._policy.origin is not None:
            found = origin.bring(self._policy.origin, self._local, self._say, stop, self._transfer)
        if found is None and resume == "require":
            place = remote.place if remote is not None else self._local.folder
            raise CheckpointError(f"checkpoint.resume=require: there is no checkpoint in {place}")
        return found

    def _own(self, skip: frozenset[int], stop: threading.Event) -> Found | None:
        resume = self._policy.resume
        if self._remote is not None:
            restore = Restore(self._local, self._remote, self._say, stop, self._transfer)
            return restore.of_step(int(resume)) if resume.isdigit() else restore.newest(skip)
        if resume.isdigit():
            return Found(self._local.path(int(resume)), self._local.verified(int(resume)))
        return self._local.newest(lambda error: self._say(f"{error}; going back to the one before"), skip=skip)
