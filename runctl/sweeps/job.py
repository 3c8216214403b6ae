"""One job of a sweep: whose run it is, and what became of it."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from runctl.composed import Composed
from runctl.cost import total_usd
from runctl.encoding import dumps
from runctl.outcome import Attempt
from runctl.signals import PassedOn
from runctl.standing import attempt_cost_usd

_LONGEST_WORD = 40


@dataclass
class Job:
    """What is known of one.

    Attributes:
        number: its place in the sweep, from 1.
        overrides: key and value of what tells it from the others.
        run_id: of its run.
        url: of its run directory.
        launch: what is to be carried out; None once it has been.
        signals: which ask it to stop; None for those to this process.
        state: `waiting`, `running`, `not started`, or as its run ended.
        exit_code: that a launch of it alone would have had.
        reason: why it ended, in a line.
        values: by metric: of the sweep's objectives, and of those by which earlier commands judged it.
        step: the last one that its run is known to have completed.
        time_s: that its attempts took together.
        cost_usd: of its attempts; None where that is not known.
        done_before: whether nothing was done now, for it had ended earlier.
        code: what of the project's code it was done with; see `bundle.code_digest`.
    """

    number: int
    overrides: dict[str, str]
    run_id: str = ""
    url: str = ""
    launch: Composed | None = None
    signals: PassedOn | None = None
    state: str = "waiting"
    exit_code: int = 0
    reason: str = ""
    values: dict[str, float | None] = field(default_factory=dict)
    step: int | None = None
    time_s: float = 0.0
    cost_usd: float | None = None
    done_before: bool = False
    code: str | None = None

    @property
    def label(self) -> str:
        """What tells it from the others, for people: in one line."""
        return self._label()

    def label_within(self, room: int) -> str:
        """The label in so many characters: values are cut in the middle, the longest first."""
        told = self._label()
        longest = max((len(value) for value in self.overrides.values()), default=0)
        for most in range(min(longest, room), 2, -1):
            if len(told) <= room:
                break
            told = self._label(most)
        return _cut(told, room)

    def _label(self, most: int | None = None) -> str:
        words = [f"{key.removeprefix('args.')}={_cut(value, most)}" for key, value in self.overrides.items()]
        return _printable(" ".join(words) or self.run_id or f"job {self.number}")

    @property
    def failed(self) -> bool:
        return self.exit_code != 0

    def note(self, attempts: Sequence[Attempt]) -> None:
        """Take over what became of its run."""
        last = attempts[-1]
        self.state, self.exit_code, self.reason = last.state.value, last.exit_code or 0, last.end_reason
        self.step = next((one.step for one in reversed(attempts) if one.step is not None), None)
        # Nobody has put down what those cost whose launcher had gone; their price and their time are known.
        self.cost_usd = total_usd([attempt_cost_usd(one, time.time()) for one in attempts])
        self.time_s = sum(max(0.0, (one.ended_at or one.started_at) - one.started_at) for one in attempts)

    def to_json(self) -> dict[str, Any]:
        """A row of `sweep.json`."""
        return {
            "run_id": self.run_id,
            "overrides": self.overrides,
            "state": self.state,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "metrics": self.values,
            "step": self.step,
            "time_s": round(self.time_s, 3),
            "cost_usd": self.cost_usd,
            "run_dir": self.url,
            "code": self.code,
        }


def overrides_of(words: Iterable[str]) -> dict[str, str]:
    """Keys and values of overrides as they were meant: without what Hydra's grammar wants around them.

    Args:
        words: in Hydra's grammar, as in `+env.A='b c'`.
    """
    told = (word.lstrip("+").partition("=") for word in words)
    return {key: _plain(value) for key, _, value in told}


def _plain(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1].replace(f"\\{value[0]}", value[0])
    return value if value.startswith(("[", "{")) else re.sub(r"\\(.)", r"\1", value)


def _printable(text: str) -> str:
    """Nothing in it that a terminal would obey."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _cut(text: str, most: int | None) -> str:
    """Its begin and its end, if it is longer than that: paths differ at either."""
    if most is None or len(text) <= most:
        return text
    end = (most - 1) // 2
    return text[: most - 1 - end] + "…" + text[len(text) - end :]


def run_id_of(launch: Composed, generation: int) -> str:
    """The run that a job is, whenever it is launched.

    It hangs on the sweep's name, what the script is given, the script's text and whatever else was swept; nothing else,
    so that the same command finds its runs again, and other code changes nothing.

    Args:
        launch: the job.
        generation: how often the sweep was begun anew.
    """
    spec = launch.spec
    if launch.cfg.run.id is not None:
        return spec.run.id
    program = spec.program
    beside = sorted(word for word in launch.swept if not re.match(r"\+*(args\.|run\.|sweep\.)", word))
    told = (spec.run.name, generation, program.script, program.module, program.digest, spec.script_words(),
            spec.script_env(), beside)  # fmt: skip
    word = re.sub(r"[^a-z0-9]+", "-", spec.run.name.lower()).strip("-")[:_LONGEST_WORD].strip("-") or "run"
    return f"{word}-{hashlib.sha256(dumps(told).encode()).hexdigest()[:10]}"
