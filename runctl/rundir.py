"""RunDir: the only owner of names in a run directory, on a local path or any fsspec URL.

    spec.json                the LaunchSpec
    config.yaml              the effective configuration it was composed from
    lease.json               who carries the run out just now
    status.json              where it stands; heartbeat.json, that somebody lives
    attempts/1.json          one record an attempt
    outcome.json             what `output=json` prints at the end
    events.jsonl             what happened, in order
    metrics.jsonl            step=… lines, from every attempt
    logs/a1/n0/r0.log        output by attempt, node and rank
    provenance/              git commit and diff, versions, host

A `.jsonl` or `.log` is one growing file on a local path and a folder of write-once segments on object storage,
where nothing can be appended.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

from runctl import processes
from runctl.errors import LeaseHeld, StorageError
from runctl.spec import Attempt, LaunchSpec, Outcome, RunState, dumps, loads, to_data
from runctl.storage import Store, Stream, is_writable, open_store

HEARTBEAT_S = 5.0
#: A run on another host counts as alive for this long after its last heartbeat.
LEASE_TIMEOUT_S = 60.0


def run_url(root: str, run_id: str) -> str:
    """Where the run directory of `run_id` lies below `root`."""
    return f"{root.rstrip('/')}/{run_id}"


class RunDir:
    """One run directory."""

    def __init__(self, url: str) -> None:
        self.store: Store = open_store(url)

    @property
    def url(self) -> str:
        return self.store.url

    @classmethod
    def check(cls, root: str) -> None:
        """Check before a launch that `root` can hold run directories.

        Raises:
            StorageError: with the reason.
        """
        is_writable(root)

    # --- the run ---

    def write_spec(self, spec: LaunchSpec) -> None:
        self.store.write("spec.json", _pretty(spec))

    def read_spec(self) -> LaunchSpec:
        """The spec of this run.

        Raises:
            StorageError: if there is none or it cannot be read.
        """
        data = self.store.read("spec.json")
        if data is None:
            raise StorageError(f"{self.url} is no run directory: it has no spec.json")
        try:
            return loads(LaunchSpec, data.decode())
        except (ValueError, TypeError) as error:
            raise StorageError(f"{self.url}/spec.json cannot be read: {error}") from error

    def publish(self, name: str, data: bytes) -> None:
        """Keep a file of a plugin's: `provenance/git.diff`."""
        self.store.write(name, data)

    def write_outcome(self, outcome: Outcome) -> None:
        self.store.write("outcome.json", _pretty(outcome.to_json()))

    # --- where it stands ---

    def write_status(self, state: RunState, attempt: int, **fields: Any) -> None:
        self.store.write("status.json", _pretty({"state": state, "attempt": attempt, "at": time.time(), **fields}))

    def read_status(self) -> dict[str, Any] | None:
        return self._read_json("status.json")

    def beat(self, attempt: int, host: str, pid: int, step: int | None) -> None:
        """Say that the attempt lives."""
        self.store.write(
            "heartbeat.json",
            _pretty({"at": time.time(), "attempt": attempt, "host": host, "pid": pid, "step": step}),
        )

    def heartbeat(self) -> dict[str, Any] | None:
        return self._read_json("heartbeat.json")

    # --- attempts ---

    def write_attempt(self, attempt: Attempt) -> None:
        self.store.write(f"attempts/{attempt.number}.json", _pretty(attempt))

    def read_attempt(self, number: int) -> Attempt | None:
        data = self.store.read(f"attempts/{number}.json")
        return None if data is None else loads(Attempt, data.decode())

    def attempts(self) -> list[Attempt]:
        """Every attempt on record, in order."""
        numbers = sorted(int(name.removesuffix(".json")) for name in self.store.names("attempts"))
        return [attempt for attempt in map(self.read_attempt, numbers) if attempt is not None]

    # --- the lease ---

    def take_lease(self, pid: int) -> None:
        """Take the run for the process `pid` of this host; a dead holder's lease is taken over.

        Raises:
            LeaseHeld: naming the process that carries the run out.
        """
        self.check_lease()
        lease = {"host": socket.gethostname(), "pid": pid, "started_at": processes.started_at(pid)}
        self.store.write("lease.json", _pretty(lease))

    def check_lease(self) -> None:
        """Check that nobody carries this run out just now.

        Raises:
            LeaseHeld: naming the process that does.
        """
        lease = self._read_json("lease.json")
        if lease is None or not self._holder_lives(lease):
            return
        raise LeaseHeld(
            f"run {self.url.rsplit('/', 1)[-1]} is alive: process {lease['pid']} on {lease['host']} carries it out; "
            "wait for it or stop it, or launch under another run.id"
        )

    def drop_lease(self) -> None:
        self.store.delete("lease.json")

    def _holder_lives(self, lease: dict[str, Any]) -> bool:
        if lease["host"] == socket.gethostname():
            return processes.started_at(int(lease["pid"])) == float(lease["started_at"])
        beat = self.heartbeat()
        return beat is not None and time.time() - float(beat["at"]) < LEASE_TIMEOUT_S

    # --- streams ---

    def event_stream(self, writer: str) -> Stream:
        """The stream of events, for one writer."""
        return self.store.stream("events.jsonl", writer)

    def metrics_stream(self, writer: str) -> Stream:
        return self.store.stream("metrics.jsonl", writer)

    def log_stream(self, attempt: int, node: int, source: str) -> Stream:
        """The log of a rank (`r0`) or of torchrun itself, on one node in one attempt."""
        return self.store.stream(log_name(attempt, node, source))

    def read_log(self, attempt: int, node: int, source: str) -> Iterator[bytes]:
        return self.store.read_stream(log_name(attempt, node, source))

    def events(self) -> list[dict[str, Any]]:
        return self._read_lines("events.jsonl")

    def metrics(self) -> list[dict[str, Any]]:
        return self._read_lines("metrics.jsonl")

    def _read_lines(self, name: str) -> list[dict[str, Any]]:
        """The JSON lines of a stream; a torn one, of a writer that was killed, is passed over."""
        entries = []
        for line in b"".join(self.store.read_stream(name)).splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        return entries

    def _read_json(self, name: str) -> dict[str, Any] | None:
        data = self.store.read(name)
        if data is None:
            return None
        parsed: dict[str, Any] = json.loads(data)
        return parsed


def log_name(attempt: int, node: int, source: str) -> str:
    """Where a log lies in a run directory."""
    return f"logs/a{attempt}/n{node}/{source}.log"


def event_line(event: str, **fields: Any) -> bytes:
    """One line for the stream of events."""
    return (dumps({"at": round(time.time(), 3), "event": event, **fields}) + "\n").encode()


def _pretty(value: Any) -> bytes:
    return (json.dumps(to_data(value), indent=2, ensure_ascii=False) + "\n").encode()
