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
from runctl.spec import SCHEMA, LaunchSpec
from runctl.storage import open_store
from runctl.sweeps.job import Job

_FILE = "sweep.json"
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
        before = open_store(self.url).read_json(_FILE) or {}
        self.generation = int(before.get("generation", 1)) + (1 if fresh and before else 0)
        self._rows: dict[str, dict[str, Any]] = {} if fresh else {one["run_id"]: one for one in before.get("jobs", ())}
        self._before = dict(self._rows)
        self._written = b""

    def code_of(self, run_id: str) -> str | None:
        """The code that a job was done with by an earlier command, or None where that is not known."""
        code: str | None = self._before.get(run_id, {}).get("code")
        return code

    def cost_of(self, run_id: str) -> float | None:
        """What a job had cost when an earlier command ended, or None where that is not known."""
        usd: float | None = self._before.get(run_id, {}).get("cost_usd")
        return usd

    def values_of(self, run_id: str) -> dict[str, float | None]:
        """What is known that a job came to, by whatever metrics earlier commands judged it."""
        values: dict[str, float | None] = self._before.get(run_id, {}).get("metrics", {})
        return {metric: value for metric, value in values.items() if value is not None}

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
        told = {"schema": SCHEMA, "sweep": self.name, "generation": self.generation, "jobs": rows}
        data = (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode()
        if data == self._written:
            return
        # Opened anew, for a book goes between processes, and what is connected to a network does not.
        store = open_store(self.url)
        store.write(_FILE, data)
        store.write("sweep.csv", _table(rows).encode())
        self._written = data


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
