"""One instance from its launch to its end: brought up through SSM, then followed by its run directory and by EC2.

Everything here is one look at a time, so that the launcher hears its user meanwhile, and everything can be begun again
by another launcher: the command that starts the keeper starts nothing twice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from runctl.errors import NotAllowed, RunctlError, StorageError
from runctl.platforms.aws.clients import Clients
from runctl.platforms.aws.commands import Commands, SentCommand
from runctl.platforms.aws.instances import Instance, Instances
from runctl.rundir import RunDir
from runctl.spec import RunHandle, RunState
from runctl.storage.s3 import expired

#: How often each source is asked (seconds); EC2 and SSM bill nothing, but slow down whoever asks too often.
_STATUS_S = 6.0
_INSTANCE_S = 30.0
_COMING_UP_S = 5.0
_HEARTBEAT_S = 15.0
#: An agent writes a heartbeat every 5 s; after so long without one its host is lost, or cut off.
_SILENCE_S = 180.0
#: What an instance that has ended may still have on its way to storage.
_LAST_WORDS_S = 15.0
_COMMAND_S = 120.0
#: The command that starts the keeper ends within seconds.
_ANSWER_S = 1.0
_SENDS = 5
#: A right that was only just given is not known everywhere yet; after so many refusals in a row it is not given.
_DENIALS = 5


class Watch:
    """Looks after one instance.

    Args:
        handle: where it is.
        clients: AWS's clients.
        run_dir: the run directory's URL.
        start: makes the script that starts the keeper.
        bring_up_s: how long the instance may take from its launch to the agent's first word.
        tell: takes lines for the user.

    Attributes:
        why: why it ended, if the agent left no record.
    """

    def __init__(
        self,
        handle: RunHandle,
        clients: Clients,
        run_dir: str,
        *,
        start: Callable[[], str],
        bring_up_s: float,
        tell: Callable[[str], None],
    ) -> None:
        self._handle = handle
        self._where = handle.address
        self._instances = Instances(clients, self._where["region"])
        self._commands = Commands(clients, self._where["region"])
        self._clients = clients
        self._rundir = RunDir(run_dir)
        self._start = start
        self._bring_up_s = bring_up_s
        self._tell = tell
        self._next: dict[str, float] = {}
        self._status: dict[str, Any] | None = None
        self._instance: Instance | None = None
        self._gone_since: float | None = None
        self._began_here = time.monotonic()
        self._command: SentCommand | None = None
        self._sends = 0
        self._denials = 0
        self._started = False
        self._console_kept = False
        self._trouble: str | None = None
        self._said: set[str] = set()
        self._beat: dict[str, Any] | None = None
        self._heard_at = time.monotonic()
        self._state = RunState.PENDING
        self.why = ""

    def look(self) -> RunState:
        """Look where the attempt stands, and do the next step of bringing it up if that is due."""
        if self._state.ended:
            return self._state
        with self._kept():
            self._read_status()
        if self._status is not None and RunState(self._status["state"]).ended:
            self._state = RunState(self._status["state"])
            return self._state
        with self._kept():
            self._look_at_instance()
        if self._instance is not None and not self._instance.alive:
            self._state = self._after_the_end(self._instance)
        elif self._status is None:
            self._state = self._come_up()
        elif self._silent_for_s() > _SILENCE_S:
            self.why = f"its host {self._where['instance']} has not been heard of for {_SILENCE_S:.0f} s"
            self._state = RunState.INTERRUPTED
        else:
            self._state = RunState(self._status["state"])
        return self._state

    def cancel(self, reason: str, *, now: bool) -> None:
        """Ask the agent to stop; a host that has no agent yet is simply given up."""
        if self._status is None:
            self._next["status"] = 0.0  # it may have begun since the last look
            with self._kept():
                self._read_status()
        if self._status is None:
            self.why = "stopped before the training began"
            self._state = RunState.STOPPED
            return
        self._rundir.ask_to_stop(self._handle.attempt, reason, now=now)

    def _due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + every_s
        return True

    def _read_status(self) -> None:
        expected = self._status is not None or self._started or self._gone_since is not None
        if not self._due("status", _STATUS_S if expected else _INSTANCE_S):
            return
        status = self._rundir.read_status()
        if status is None or status["attempt"] != self._handle.attempt:
            return
        if self._status is None:
            self._heard_at = time.monotonic()
            self._tell(f"the training runs on {self._where['instance']}")
        self._status = status

    def _look_at_instance(self) -> None:
        every_s = _INSTANCE_S if self._status is not None else 2 * _COMING_UP_S
        if self._gone_since is None and self._due("instance", every_s):
            self._instance = self._instances.get(self._where["instance"], self._where["launched_at"])
            if not self._instance.alive:
                self._gone_since = time.monotonic()
                self._next["status"] = 0.0

    def _after_the_end(self, instance: Instance) -> RunState:
        """What became of an attempt whose instance has ended, once its last words had time to arrive."""
        assert self._gone_since is not None
        if time.monotonic() - self._gone_since < _LAST_WORDS_S:
            return RunState.RUNNING if self._status is not None else RunState.PENDING
        if self._status is None:
            self._keep_console()
            if (log := self._bring_up_log()) is not None:
                self.why = f"its host could not be brought up: {log}"
                return RunState.FAILED
        if instance.taken_back:
            self.why = f"AWS took {instance.id} back without the agent's last word"
        else:
            self.why = f"its host {instance.id} is {instance.state}" + (f" ({instance.reason})" * bool(instance.reason))
        return RunState.INTERRUPTED

    def _come_up(self) -> RunState:
        """The next step towards the agent's first word; where that is the last, the console is kept."""
        state = self._next_step()
        if state.ended:
            self._keep_console()
        return state

    def _next_step(self) -> RunState:
        took_s = time.monotonic() - self._began_here
        if self._sends >= _SENDS and self._command is None and not self._started:
            self.why = f"the command that starts the agent failed {self._sends} times: {self._trouble}"
            return RunState.FAILED
        if self._denials >= _DENIALS:
            self.why = f"its host cannot be told what to do: {self._trouble}"
            return RunState.FAILED
        if took_s > self._bring_up_s:
            self.why = (
                f"its host {self._where['instance']} was not up within platform.bring_up={self._bring_up_s / 60:g}m"
                + (f": {trouble}" if (trouble := self._trouble or self._unseen()) else "")
            )
            return RunState.INTERRUPTED
        if not self._started and self._due("coming up", _COMING_UP_S):
            with self._kept():
                self._bring_up()
        return RunState.PENDING

    def _bring_up(self) -> None:
        if self._command is None:
            try:
                if self._commands.is_online(self._where["instance"]):
                    self._send()
                self._denials = 0
            except NotAllowed as error:
                # What has expired, somebody may renew; what is denied costs money while one waits.
                self._denials += not expired(error)
                raise
            return
        result = self._commands.result(self._command)
        if result is None:
            return
        if result.succeeded:
            self._started = True
            self._next["status"] = 0.0
            return
        said = (result.stderr or result.stdout).strip().splitlines()[-1:] or [result.status]
        self._trouble = f"{result.status}: {said[0]}"
        self._command = None

    def _send(self) -> None:
        run, attempt = self._handle.run_id, self._handle.attempt
        self._command = self._commands.send(
            self._where["instance"], self._start(), timeout_s=_COMMAND_S, comment=f"runctl {run} attempt {attempt}"
        )
        if self._command is not None:
            self._sends += 1
            self._next["coming up"] = time.monotonic() + _ANSWER_S

    def _unseen(self) -> str:
        """What it may be if SSM has never seen the instance; empty if it has."""
        if self._sends:
            return ""
        return (
            "SSM never saw it: its role needs the policy AmazonSSMManagedInstanceCore (ssm:UpdateInstanceInformation), "
            "its subnet a way to SSM, and its image the SSM agent"
        )

    def _keep_console(self) -> None:
        """Put what the host printed beside the log of its bring-up, for it may have no other word; once."""
        if self._console_kept:
            return
        self._console_kept = True
        name = console_log(self._handle.attempt)
        try:
            text = self._instances.console(self._where["instance"])
            if text:
                self._rundir.store.write(name, text)
                self._tell(f"what {self._where['instance']} printed on its console lies in {self._rundir.url}/{name}")
        except RunctlError as error:
            self._tell(f"its console could not be kept: {error}")

    def _silent_for_s(self) -> float:
        """Since when nothing was heard of the agent, reckoned by when it was heard here: clocks differ."""
        if self._due("heartbeat", _HEARTBEAT_S):
            with self._kept():
                beat = self._rundir.heartbeat()
                if beat != self._beat:
                    self._beat = beat
                    self._heard_at = time.monotonic()
        return time.monotonic() - self._heard_at

    def _bring_up_log(self) -> str | None:
        """The end of what a keeper wrote that could not bring its host up."""
        with contextlib.suppress(StorageError):
            data = self._rundir.store.read(bring_up_log(self._handle.attempt))
            if data is not None:
                lines = data.decode(errors="replace").strip().splitlines()[-15:]
                return "\n".join(lines)
        return None

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """A look that fails is said once and tried again: no outage of ours ends a run that lives.

        Credentials that expired meanwhile are read anew: somebody may have signed in again.
        """
        try:
            yield
        except RunctlError as error:
            if isinstance(error, NotAllowed):
                self._clients.renew()
            self._trouble = str(error)
            if self._trouble not in self._said:
                self._said.add(self._trouble)
                self._tell(f"{error} (tried again; the run goes on)")


def bring_up_log(attempt: int) -> str:
    """Where the log of a host that could not be brought up lies in the run directory."""
    return f"logs/a{attempt}/bring-up.log"


def console_log(attempt: int) -> str:
    """Where the console of such a host lies."""
    return f"logs/a{attempt}/console.txt"
