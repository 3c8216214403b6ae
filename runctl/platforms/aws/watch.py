"""One instance from its launch to its end: brought up through SSM, then followed by its run directory and by EC2."""

from __future__ import annotations

import time
from collections.abc import Callable

from runctl.errors import NotAllowed, RunctlError
from runctl.platforms.aws.clients import Clients
from runctl.platforms.aws.commands import Commands, SentCommand
from runctl.platforms.aws.instances import Instance, Instances, known_since
from runctl.platforms.watching import COMING_UP_S, HostWatch
from runctl.rundir import RunDir
from runctl.spec import RunHandle, RunState
from runctl.storage.s3 import expired

_COMMAND_S = 120.0
#: The command that starts the keeper ends within seconds.
_ANSWER_S = 1.0
_SENDS = 5
#: A right that was only just given is not known everywhere yet; after so many refusals in a row it is not given.
_DENIALS = 5


class Watch(HostWatch):
    """Looks after one instance.

    Args:
        handle: where it is.
        clients: AWS's clients.
        run_dir: the run directory's URL.
        start: makes the script that starts the keeper.
        bring_up_s: how long the instance may take from its launch to the agent's first word.
        tell: takes lines for the user.
        shared: whether another run waits for the instance.
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
        shared: bool = False,
    ) -> None:
        where = handle.address
        super().__init__(
            handle, RunDir(run_dir), host=where["instance"], bring_up_s=bring_up_s, tell=tell, shared=shared
        )
        self._launched_at = known_since(where)
        self._instances = Instances(clients, where["region"])
        self._commands = Commands(clients, where["region"])
        self._clients = clients
        self._start = start
        self._instance: Instance | None = None
        self._command: SentCommand | None = None
        self._sends = 0
        self._denials = 0
        self._started = False
        self._console_kept = False

    def _lives(self) -> bool:
        self._instance = self._instances.get(self._host, self._launched_at)
        return self._instance.alive

    def _why_gone(self) -> str:
        instance = self._instance
        assert instance is not None
        if instance.taken_back:
            return f"AWS took {instance.id} back without the agent's last word"
        return f"its host {instance.id} is {instance.state}" + (f" ({instance.reason})" * bool(instance.reason))

    @property
    def _is_started(self) -> bool:
        return self._started

    def _bring_up(self) -> RunState:
        if self._sends >= _SENDS and self._command is None and not self._started:
            self.why = f"the command that starts the agent failed {self._sends} times: {self._trouble}"
            return RunState.FAILED
        if self._denials >= _DENIALS:
            self.why = f"its host cannot be told what to do: {self._trouble}"
            return RunState.FAILED
        if not self._started and self._due("coming up", COMING_UP_S):
            with self._kept():
                self._tell_host()
        return RunState.PENDING

    def _tell_host(self) -> None:
        if self._command is None:
            try:
                if self._commands.is_online(self._host):
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
            self._host, self._start(), timeout_s=_COMMAND_S, comment=f"runctl {run} attempt {attempt}"
        )
        if self._command is not None:
            self._sends += 1
            self._next["coming up"] = time.monotonic() + _ANSWER_S

    def _unseen(self) -> str:
        if self._sends:
            return ""
        return (
            "SSM never saw it: its role needs the policy AmazonSSMManagedInstanceCore (ssm:UpdateInstanceInformation), "
            "its subnet a way to SSM, and its image the SSM agent"
        )

    def _renew(self) -> None:
        self._clients.renew()

    def _keep_console(self) -> None:
        """Put what the host printed beside the log of its bring-up; once."""
        if self._console_kept:
            return
        self._console_kept = True
        name = console_log(self._handle.attempt)
        try:
            text = self._instances.console(self._host)
            if text:
                self._rundir.store.write(name, text)
                self._tell(f"what {self._host} printed on its console lies in {self._rundir.url}/{name}")
        except RunctlError as error:
            self._tell(f"its console could not be kept: {error}")


def console_log(attempt: int) -> str:
    """Where the console of such a host lies."""
    return f"logs/a{attempt}/console.txt"
