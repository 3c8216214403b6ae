"""RunDir: the only owner of names in a run directory, on a local path or any fsspec URL.

    spec.json                the LaunchSpec
    config.yaml              the effective configuration it was composed from
    lease.json               who carries the run out just now
    status.json              where it stands; heartbeat.json, that somebody lives
    attempts/1.json          one record an attempt
    attempts/1.submit.json   what a rented host was asked for, written before it was; see `bills` for 1.rates.json
    checkpoints/step-000120/ checkpoints, each with its manifest.json
    outcome.json             what `output=json` prints at the end
    events.jsonl             what happened, in order
    metrics.jsonl            step=… lines, from every attempt
    usage.jsonl              how busy its hosts were: GPU, processors, memory
    logs/a1/n0/r0.log        output by attempt, node and rank
    logs/a1/n0/times.jsonl   how long they were at what time
    logs/a1/console          what a terminal would show of a detached attempt, in segments
    logs/a1/bring-up.log     of a rented host that never spoke, as is its console.txt
    control/stop.json        the last stop that was asked for from elsewhere; see `saves` for the others
    provenance/              git commit and diff, versions, host

A `.jsonl` or `.log` is one growing file on a local path and a folder of write-once segments on object storage,
where nothing can be appended.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from runctl.encoding import dumps, from_data, loads, to_data
from runctl.errors import StorageError
from runctl.lease import Lease
from runctl.outcome import Attempt, Outcome
from runctl.spec import LaunchSpec, Plan, RunHandle, RunState
from runctl.storage import Store, Stream, check_place, open_store

T = TypeVar("T")
_STOP = "control/stop.json"

HEARTBEAT_S = 5.0


def run_url(root: str, run_id: str) -> str:
    """Where the run directory of `run_id` lies below `root`."""
    return f"{root.rstrip('/')}/{run_id}"


@dataclass(frozen=True)
class StopRequest:
    """A stop that is asked for through the run directory.

    Attributes:
        reason: a word for why, as signals to a launcher give it: `user`, `terminated`.
        now: whether the ranks are left no time.
        at: when it was asked for (seconds since the epoch).
        attempt: which attempt is asked.
    """

    reason: str
    now: bool
    at: float
    attempt: int


class RunDir:
    """One run directory."""

    def __init__(self, url: str) -> None:
        self.store: Store = open_store(url)
        self.lease = Lease(self.store, self.heartbeat)

    @property
    def url(self) -> str:
        return self.store.url

    @classmethod
    def check(cls, root: str) -> None:
        """Check before a launch that `root` can hold run directories.

        Raises:
            StorageError: with the reason.
        """
        check_place("run.root", root)

    # --- the run ---

    def write_spec(self, spec: LaunchSpec) -> None:
        self.store.write("spec.json", _pretty(spec))

    def read_spec(self) -> LaunchSpec:
        """The spec of this run.

        Raises:
            StorageError: if there is none or it cannot be read.
        """
        spec = self.read_as(LaunchSpec, "spec.json")
        if spec is None:
            raise StorageError(f"{self.url} is no run directory: it has no spec.json")
        return spec

    def publish(self, name: str, data: bytes) -> None:
        """Keep a file of a plugin's: `provenance/git.diff`."""
        self.store.write(name, data)

    def write_outcome(self, outcome: Outcome) -> None:
        self.store.write("outcome.json", _pretty(outcome.to_json()))

    def read_outcome(self) -> dict[str, Any] | None:
        """The outcome of the last launch that ended, in its public form."""
        return self.store.read_json("outcome.json")

    def exists(self) -> bool:
        """Whether there is such a run."""
        return self.store.read("spec.json") is not None

    def local_checkpoints(self) -> Path | None:
        """The folder of checkpoints, if the run directory lies on this machine."""
        return Path(self.url) / "checkpoints" if "://" not in self.url else None

    # --- where it stands ---

    def write_status(self, state: RunState, attempt: int, **fields: Any) -> None:
        """Say where the run stands: an end is written at once, what comes before it may be late."""
        put = self.store.write if state.ended else self.store.post
        put("status.json", _pretty({"state": state, "attempt": attempt, "at": time.time(), **fields}))

    def read_status(self) -> dict[str, Any] | None:
        return self.store.read_json("status.json")

    def beat(self, attempt: int, host: str, pid: int, **progress: Any) -> None:
        """Say that the attempt lives, and how far it is; it must not die because that cannot be written."""
        beat = {"at": time.time(), "attempt": attempt, "host": host, "pid": pid, **progress}
        self.store.post("heartbeat.json", _pretty(beat))

    def heartbeat(self) -> dict[str, Any] | None:
        return self.store.read_json("heartbeat.json")

    # --- attempts ---

    def write_attempt(self, attempt: Attempt) -> None:
        self.store.write(f"attempts/{attempt.number}.json", _pretty(attempt))

    def read_attempt(self, number: int) -> Attempt | None:
        return self.read_as(Attempt, f"attempts/{number}.json")

    def attempts(self) -> list[Attempt]:
        """Every attempt on record, in order."""
        found = (re.fullmatch(r"(\d+)\.json", name) for name in self.store.names("attempts"))
        numbers = sorted(int(match[1]) for match in found if match is not None)
        return [attempt for attempt in map(self.read_attempt, numbers) if attempt is not None]

    def write_submission(self, plan: Plan, handle: RunHandle | None) -> None:
        """Keep what an attempt is submitted with: before it is, without a handle, and again with what was granted.

        Written anew each time that a host is asked for, it is the launcher's sign of life until the agent speaks.
        """
        told = {"plan": plan, "handle": handle, "at": time.time()}
        self.store.write(_submission(plan.attempt), _pretty(told))

    def last_submission(self) -> Plan | None:
        """What the newest attempt on a rented host was submitted with."""
        found = (re.fullmatch(r"(\d+)\.submit\.json", name) for name in self.store.names("attempts"))
        numbers = [int(match[1]) for match in found if match is not None]
        newest = self.submission(max(numbers)) if numbers else None
        return None if newest is None else newest[0]

    def submission(self, attempt: int) -> tuple[Plan, RunHandle | None] | None:
        """What an attempt on a rented host was submitted with, and what was granted."""
        data = self.store.read_json(_submission(attempt))
        if data is None:
            return None
        try:
            return from_data(Plan, data["plan"]), from_data(RunHandle, data["handle"]) if data["handle"] else None
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{self.url}/{_submission(attempt)} cannot be read: {error}") from error

    def submitted_at(self, attempt: int) -> float | None:
        """When a host was asked for last for an attempt (seconds since the epoch); None if none was."""
        data = self.store.read_json(_submission(attempt))
        return None if data is None else float(data.get("at", 0.0))

    # --- a stop that is asked for from elsewhere ---

    def ask_to_stop(self, attempt: int, reason: str, *, now: bool = False) -> None:
        """Ask a detached attempt to stop; it looks every few seconds. `now` leaves its ranks no time."""
        self.store.write(_STOP, _pretty(StopRequest(reason, now, time.time(), attempt)))

    def stop_request(self, attempt: int) -> StopRequest | None:
        """What an attempt was asked last, or None; what an earlier one was asked counts no more."""
        request = self.read_as(StopRequest, _STOP)
        return request if request is not None and request.attempt == attempt else None

    # --- streams ---

    def event_stream(self, writer: str) -> Stream:
        """The stream of events, for one writer."""
        return self.store.stream("events.jsonl", writer)

    def metrics_stream(self, writer: str) -> Stream:
        return self.store.stream("metrics.jsonl", writer)

    def usage_stream(self, writer: str) -> Stream:
        """How busy a host was, half a minute a line: {at, attempt, gpu, gpu_memory, cpu, memory}, as shares."""
        return self.store.stream("usage.jsonl", writer)

    def usage(self) -> list[dict[str, Any]]:
        """How busy the hosts of all attempts were, in the order of time."""
        return sorted(self.read_lines("usage.jsonl"), key=lambda entry: float(entry["at"]))

    def local_metrics(self) -> Path | None:
        """The file of metrics, if the run directory lies on this machine."""
        return Path(self.url) / "metrics.jsonl" if "://" not in self.url else None

    def log_stream(self, attempt: int, node: int, source: str) -> Stream:
        """The log of a rank (`r0`) or of torchrun itself, on one node in one attempt."""
        return self.store.stream(log_name(attempt, node, source))

    def read_log(self, attempt: int, node: int, source: str) -> Iterator[bytes]:
        return self.store.read_stream(log_name(attempt, node, source))

    def console_stream(self, attempt: int) -> Stream:
        """What a terminal would show of an attempt whose launcher need not be there."""
        return self.store.stream(f"logs/a{attempt}/console")

    def console_segment(self, attempt: int, number: int) -> bytes | None:
        """A segment of that, from 0, or None as long as there is none; each is published once and whole."""
        return self.store.read(f"logs/a{attempt}/console/{number:06d}")

    def events(self) -> list[dict[str, Any]]:
        """What happened, in the order of its time; on object storage each writer has segments of its own."""
        return sorted(self.read_lines("events.jsonl"), key=lambda entry: float(entry["at"]))

    def metrics(self, lines: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        """The metrics of the training as it counts (`lines`: all of them, if they were read before): what an attempt
        did beyond the step from which a later one resumed was lost, and done again."""
        # Segments on object storage come by their writers' names, in which a10 stands before a9.
        entries = self.read_lines("metrics.jsonl") if lines is None else lines
        entries = sorted(entries, key=lambda entry: int(entry["attempt"]))
        began = {entry["attempt"] for entry in entries}
        # One that was killed before it knew what to begin from has done nothing anew.
        resumed = {
            attempt.number: attempt.resumed_from_step or 0
            for attempt in self.attempts()
            if attempt.resumed_from_step is not None or attempt.number in began
        }

        def counts(entry: dict[str, Any]) -> bool:
            later = [step for number, step in resumed.items() if number > entry["attempt"]]
            return not later or ("step" in entry and entry["step"] <= min(later))

        return [entry for entry in entries if counts(entry)]

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """The JSON lines of a stream; a torn one, of a writer that was killed, is passed over."""
        entries = []
        for line in b"".join(self.store.read_stream(name)).splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        return entries

    def read_as(self, kind: type[T], name: str) -> T | None:
        """An object of the run's that was written as `kind`; None if there is none.

        Raises:
            StorageError: if it cannot be read.
        """
        data = self.store.read(name)
        try:
            return None if data is None else loads(kind, data.decode())
        except (ValueError, TypeError) as error:
            raise StorageError(f"{self.url}/{name} cannot be read: {error}") from error


def logs_folder(attempt: int, node: int) -> str:
    """Where the logs of a node lie in a run directory."""
    return f"logs/a{attempt}/n{node}"


def log_name(attempt: int, node: int, source: str) -> str:
    """Where a log lies in a run directory."""
    return f"{logs_folder(attempt, node)}/{source}.log"


def _submission(attempt: int) -> str:
    return f"attempts/{attempt}.submit.json"


def event_line(event: str, **fields: Any) -> bytes:
    """One line for the stream of events."""
    return (dumps({"at": round(time.time(), 3), "event": event, **fields}) + "\n").encode()


def _pretty(value: Any) -> bytes:
    return (json.dumps(to_data(value), indent=2, ensure_ascii=False) + "\n").encode()
