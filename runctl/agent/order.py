"""The order that starts an attempt: one line of JSON from a platform to its agent."""

from __future__ import annotations

from dataclasses import dataclass

from runctl.encoding import loads


@dataclass(frozen=True)
class Order:
    """What the agent is told; everything else stands in the run directory.

    Attributes:
        run_dir: path or URL of the run directory.
        attempt: number of this attempt, from 1.
        project_dir: where the user's project lies on this host, absolute.
        platform: the platform's kind, for the record.
        market: how the host is paid for, for the record.
        attached: whether the attempt ends with its launcher.
        output_to_stderr: whether all output of the ranks goes to standard error.
        price_usd_per_hour: of this host; None where it is not known.
        billed_from: since when the host is billed, seconds since the epoch; None if that is the attempt's begin.
        notices: who tells that the host is about to be taken away: `aws`, `runpod`, or `none`.
        python: the interpreter of the ranks, absolute; None is the agent's own.
        secrets: by variable, where this host finds what the ranks get; None is where the spec says.
        setup_secrets: the same for what prepares the host: the ranks' environment is made with them.
        agent_secrets: the same for what the agent keeps to itself: whom it is to notify.
        deadline: when this host ends itself (seconds since the epoch); None for one's own.
        parameters: those of SSM's that were put down for this attempt alone, and go once they have been read.
    """

    run_dir: str
    attempt: int
    project_dir: str
    platform: str
    market: str = "own"
    attached: bool = True
    output_to_stderr: bool = False
    price_usd_per_hour: float | None = None
    billed_from: float | None = None
    notices: str = "none"
    python: str | None = None
    secrets: dict[str, str] | None = None
    setup_secrets: dict[str, str] | None = None
    agent_secrets: dict[str, str] | None = None
    parameters: tuple[str, ...] = ()
    deadline: float | None = None

    @classmethod
    def from_line(cls, line: bytes) -> Order:
        """Read an order.

        Raises:
            ValueError: for a field that this version does not know.
        """
        return loads(cls, line.decode())
