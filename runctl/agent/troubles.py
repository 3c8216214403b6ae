"""What goes wrong with an attempt's records while its ranks run: it must not stop a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runctl.errors import RunctlError


class Troubles:
    """Keeps the first error of the record-keeping, to be told at the attempt's end.

    A full disk fails every write that follows; the first error is the one that says why.
    """

    def __init__(self) -> None:
        self.first: Exception | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep an error of what is done inside instead of passing it on."""
        try:
            yield
        except (RunctlError, OSError) as error:
            self.first = self.first or error
