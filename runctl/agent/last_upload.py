"""The wait for the last upload, and what people see of it."""

from __future__ import annotations

import time

from runctl.checkpoint.progress import ProgressBar
from runctl.checkpoint.transfer import readable
from runctl.checkpoint.uploader import Uploader

#: A wait that is over so soon is not worth a word.
_QUIET_S = 0.5


class LastUpload:
    """Has the last checkpoint carried to where it belongs, and says so if that takes a while.

    Args:
        uploader: carries it.
        place: where to, for people.
        bar: where people see how far it has come.
    """

    def __init__(self, uploader: Uploader, place: str, bar: ProgressBar) -> None:
        self._uploader = uploader
        self._place = place
        self._bar = bar
        self._began = time.monotonic()
        self._told: set[str] = set()
        uploader.finish()

    def goes_on(self) -> bool:
        """Whether to wait on, as far as the upload is concerned."""
        uploader = self._uploader
        uploader.poll()
        goes_on = not uploader.finished and not uploader.hopeless()
        waited_s = time.monotonic() - self._began
        if not goes_on:
            self._bar.clear()
            if self._told and uploader.finished:
                self._bar.say(f"uploaded in {waited_s:.1f} s")
        elif waited_s > _QUIET_S:
            self._show()
        return goes_on

    def _show(self) -> None:
        transfer, failing = self._uploader.transfer, self._uploader.failing
        if failing is not None:
            self._tell_once(f"waiting for the upload of the last checkpoint: {failing}")
        elif transfer.step is not None:
            size = readable(transfer.size_bytes)
            self._tell_once(f"uploading checkpoint step {transfer.step} to {self._place}: {size}")
            self._bar.show("uploading", transfer)

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._bar.say(text)
