"""Saves that are asked for from elsewhere: handed on to the ranks, and answered once there is such a checkpoint."""

from __future__ import annotations

from runctl import saves
from runctl.agent.checkpoints import Asked, Checkpoints
from runctl.agent.control import ControlWatch
from runctl.rundir import RunDir
from runctl.saves import SaveAnswer, SaveRequest

_DEAF = (
    "its ranks do not look out for it (yet): a script does with runctl.attach(…); what one writes by itself is kept "
    "through checkpoint.watch as soon as it is written"
)


class Saving:
    """Carries out the newest request.

    Args:
        control: hears of requests.
        checkpoints: through which ranks are asked.
        rundir: where the answer goes.
    """

    def __init__(self, control: ControlWatch, checkpoints: Checkpoints, rundir: RunDir) -> None:
        self._control = control
        self._checkpoints = checkpoints
        self._rundir = rundir
        self._request: SaveRequest | None = None
        self._asked: Asked | None = None
        self._said: SaveAnswer | None = None

    def poll(self) -> None:
        """The next step of what was asked for, without waiting for anything."""
        request = self._control.save
        if request is None or (request == self._request and self._said is not None and self._said.step is not None):
            return
        if request != self._request:
            self._request, self._asked = request, None
        if self._asked is None or self._asked.restart != self._checkpoints.restart():
            self._asked = self._checkpoints.ask_to_save()  # once more after the ranks have begun anew
        if self._asked is None:
            self._answer(SaveAnswer(request.id, waiting=_DEAF))
            return
        self._answer(SaveAnswer(request.id, self._checkpoints.first_after(self._asked.step)))

    def _answer(self, said: SaveAnswer) -> None:
        if said != self._said:
            self._said = said
            saves.answer(self._rundir, said)
