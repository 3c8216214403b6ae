"""Signals that ask a launch to stop, collected while its run goes on: the first asks for it, the next at once."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: What each asks for, in the words of a stop request.
REASONS = {signal.SIGINT: "user", signal.SIGTERM: "terminated", signal.SIGHUP: "hangup"}


class StopSignals:
    """Signals to this process.

    Attributes:
        received: in the order in which they came.
    """

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self._raises = False

    @contextmanager
    def caught(self) -> Iterator[StopSignals]:
        """Collect instead of dying; the handlers before are put back at the end."""
        # A hangup that is ignored, as nohup has it, stays ignored.
        heard = [number for number in REASONS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Have Ctrl-C raise KeyboardInterrupt as usual, for a while."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self._raises:
            raise KeyboardInterrupt
        self.received.append(signal.Signals(signum))


class PassedOn(StopSignals):
    """Signals that somebody else caught and passes on to the thread in which one of several runs is carried out."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._thread: int | None = None

    @contextmanager
    def caught(self) -> Iterator[StopSignals]:
        """Nothing is caught here: only the main thread could."""
        yield self

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Have a signal raise KeyboardInterrupt in this thread; one that came before does so at once."""
        if self.received:
            raise KeyboardInterrupt
        with self._lock:
            self._thread = threading.get_ident()
        try:
            yield
        finally:
            with self._lock:
                self._thread = None

    def pass_on(self, signum: signal.Signals) -> None:
        """Take a signal over from whoever caught it."""
        with self._lock:
            self.received.append(signum)
            if self._thread is not None:
                # What the interpreter does to its main thread; it takes effect at the thread's next instruction.
                thread, self._thread = ctypes.c_ulong(self._thread), None
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(KeyboardInterrupt))
