"""`runctl monitor`: a run at a glance, once or live; or any text log."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from runctl.cli import table
from runctl.cli.reference import RUN_HELP, complete, run_of
from runctl.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from runctl.cli.monitored import Seen, Source

#: Where there is no terminal, a line at most so often.
_LINE_S = 5.0
_INITIAL_LINES = 10


def monitor(
    run: Optional[str] = typer.Argument(None, help=RUN_HELP, metavar="[RUN]", autocompletion=complete),
    follow: bool = typer.Option(
        False, "--follow", "-f", help="Live, until the run ends; Ctrl-C only stops following."
    ),
    log: Optional[Path] = typer.Option(None, "--log", help="Any text log instead of a run.", metavar="FILE"),
    as_json: bool = typer.Option(False, "--json", help="For programs; with -f a line for each change."),
) -> None:  # fmt: skip
    """Watch a run: progress, metrics, load, attempts, cost, the end of its log; alerts on errors, NaN and stalls."""
    from runctl.cli.monitored import MonitoredLog, MonitoredRun

    if (run is None) == (log is None):
        raise ConfigError("monitor takes either a run, as in runctl monitor latest, or --log FILE")
    source: Source = MonitoredLog(log, follow=follow) if log is not None else MonitoredRun(run_of(str(run)))
    try:
        goes_on = source.look()
        if not follow:
            _show(source.seen, as_json=as_json)
        elif as_json or not sys.stdout.isatty():
            _Lines(source, passing=log is not None, as_json=as_json).follow(goes_on)
        else:
            _live(source, goes_on)
    except KeyboardInterrupt:
        if run is not None:
            typer.echo(f"\n{source.seen.title} goes on; runctl stop stops it", err=True)


def _show(seen: Seen, *, as_json: bool) -> None:
    if as_json:
        table.show_json(_told(seen))
        return
    from runctl.cli.dashboard import dashboard

    console = _console()
    console.print(dashboard(seen, console.width))


def _live(source: Source, goes_on: bool) -> None:
    """Draw it anew after each look; what stood there in the end stays."""
    from rich.live import Live

    from runctl.cli.dashboard import dashboard

    console = _console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(dashboard(source.seen, console.width, console.height), refresh=True)
            if not goes_on:
                return
            time.sleep(source.pause_s)
            goes_on = source.look()


class _Lines:
    """Follows where there is no terminal: a line for what has changed.

    Args:
        source: what is followed.
        passing: whether the lines of the log are shown.
        as_json: a JSON object for each change instead.
    """

    def __init__(self, source: Source, *, passing: bool, as_json: bool) -> None:
        self._source = source
        self._passing = passing
        self._as_json = as_json
        self._told_at = 0.0
        self._told: tuple[Any, ...] = ()
        self._alerts = 0

    def follow(self, goes_on: bool) -> None:
        """Until there is no more to come."""
        seen = self._source.seen
        if not self._as_json:
            # Not all of what it begins with is news.
            sys.stdout.write("".join(f"{line}\n" for line in list(seen.lines)[-_INITIAL_LINES:]))
            seen.fresh.clear()
        self._tell(last=not goes_on)
        while goes_on:
            time.sleep(self._source.pause_s)
            goes_on = self._source.look()
            self._tell(last=not goes_on)

    def _tell(self, *, last: bool) -> None:
        from runctl.cli.dashboard import summary

        seen = self._source.seen
        now = seen.now
        state = (now.state, now.attempt) if now is not None else ()
        moved = (*state, seen.step, len(seen.alerts))
        due = last or moved[:-2] != self._told[:-2] or time.monotonic() - self._told_at >= _LINE_S
        if self._as_json:
            if moved != self._told and (due or len(seen.alerts) != self._alerts):
                self._noted(moved)
                table.show_json(_told(seen))
        else:
            if self._passing:
                sys.stdout.write("".join(f"{line}\n" for line in seen.fresh))
            for alert in seen.alerts[self._alerts :]:
                sys.stdout.write(f"{_clock()} ALERT {alert.what}\n")
            if moved != self._told and due and (line := summary(seen)):
                sys.stdout.write(f"{_clock()} {line}\n")
                self._noted(moved)
            self._alerts = len(seen.alerts)
        sys.stdout.flush()

    def _noted(self, moved: tuple[Any, ...]) -> None:
        self._told, self._told_at = moved, time.monotonic()
        self._alerts = len(self._source.seen.alerts)


def _told(seen: Seen) -> dict[str, Any]:
    """The public form: where it stands, the latest metrics, the alerts, the end of the log."""
    return {
        "run": None if seen.now is None else seen.now.to_json(),
        "log_file": seen.title if seen.now is None else None,
        "step": seen.step,
        "metrics": {name: values[-1] for name, values in seen.series.items()},
        "load": {name: values[-1] for name, values in seen.load.items()},
        "alerts": [one.to_json() for one in seen.alerts],
        "log": list(seen.lines),
    }


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 80
    return Console(file=sys.stdout, width=width, highlight=False)
