"""What is remembered of a sweep between two commands, and for whoever looks at it.

<run.root>/sweeps/<name>/sweep.json    every job, what became of it, with what code
<run.root>/sweeps/<name>/sweep.csv     the same as a table
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from runctl import identity
from runctl.errors import StorageError
from runctl.spec import SCHEMA, LaunchSpec
from runctl.storage import open_store
from runctl.sweeps.job import Job

_FIXED = ("run_id", "state", "exit_code", "step", "time_s", "cost_usd", "run_dir")


class Book:
    """The record of one sweep.

    Args:
        spec: of one of its jobs.
        fresh: begin a new one under the same name.

    Attributes:
        name: the sweep's.
        url: where it lies.
        generation: how often it was begun anew.
    """

    def __init__(self, spec: LaunchSpec, *, fresh: bool) -> None:
        self.name = spec.run.name
        safe = re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,62}", self.name, re.ASCII)
        self.url = f"{spec.run.root.rstrip('/')}/sweeps/{self.name if safe else identity.key_of(spec)}"
        self._store = open_store(self.url)
        before = self._read()
        self.generation = int(before.get("generation", 1)) + (1 if fresh and before else 0)
        self._rows: dict[str, dict[str, Any]] = {} if fresh else {one["run_id"]: one for one in before.get("jobs", ())}
        self._code: dict[str, str | None] = {run_id: row.get("code") for run_id, row in self._rows.items()}

    def code_of(self, run_id: str) -> str | None:
        """The code that a job was done with by an earlier command, or None where that is not known."""
        return self._code.get(run_id)

    def spent_usd(self, but: Iterable[str]) -> float:
        """What jobs cost that other commands began, as far as it is known.

        Args:
            but: the runs that are counted elsewhere.
        """
        left = set(self._rows) - set(but)
        return float(sum(self._rows[one].get("cost_usd") or 0.0 for one in left))

    def keep(self, jobs: Iterable[Job]) -> None:
        """Put down where jobs stand; those of earlier commands stay.

        Raises:
            StorageError: if it cannot be written.
        """
        self._rows |= {job.run_id: job.to_json() for job in jobs if job.run_id}
        rows = list(self._rows.values())
        data = {"schema": SCHEMA, "sweep": self.name, "generation": self.generation, "jobs": rows}
        self._store.write("sweep.json", (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())
        self._store.write("sweep.csv", _table(rows).encode())

    def _read(self) -> dict[str, Any]:
        data = self._store.read("sweep.json")
        try:
            parsed: dict[str, Any] = {} if data is None else json.loads(data)
        except ValueError as error:
            raise StorageError(f"{self.url}/sweep.json cannot be read: {error}; delete it if it is damaged") from error
        return parsed


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each job, with a column for each thing swept and each metric."""
    swept = list(dict.fromkeys(key for row in rows for key in row["overrides"]))
    metrics = list(dict.fromkeys(key for row in rows for key in row["metrics"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_FIXED[:2], *swept, *metrics, *_FIXED[2:]])
    for row in rows:
        fixed = [row[key] for key in _FIXED]
        told = [*(row["overrides"].get(key) for key in swept), *(row["metrics"].get(key) for key in metrics)]
        writer.writerow([*fixed[:2], *told, *fixed[2:]])
    return text.getvalue()
