"""The picture that `runctl monitor` draws of a run: progress, metrics, load, attempts, alerts, the end of the log."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runctl.cli import table

if TYPE_CHECKING:
    from runctl.cli.monitored import Seen
    from runctl.outcome import Attempt
    from runctl.standing import Standing

_BARS = "▁▂▃▄▅▆▇█"
_LOAD_NAMES = {"gpu": "GPU", "gpu_memory": "GPU memory", "cpu": "CPU", "memory": "memory"}
_METRICS, _ALERTS, _ATTEMPTS = 8, 4, 4
#: Lines of the log where there is no terminal, and at least.
_LOG_LINES, _LEAST_LINES = 12, 3
_CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f]")
_BUSY, _FULL = 0.6, 0.9


def dashboard(seen: Seen, width: int, height: int | None = None) -> RenderableType:
    """The picture.

    Args:
        seen: what there is to show.
        width: columns.
        height: lines that there are for it; None for as many as it takes.
    """
    parts: list[RenderableType] = []
    used = 0
    for title, lines in (
        ("", _head(seen, width - 4)),
        ("metrics", _metrics(seen, width - 4)),
        ("load", _load(seen, width - 4)),
        ("attempts", _attempts(seen)),
        ("alerts", _alerts(seen)),
    ):
        if lines:
            parts.append(_panel(title, lines, style="red" if title == "alerts" else "bright_black"))
            used += len(lines) + 2
    left = _LOG_LINES if height is None else max(_LEAST_LINES, height - used - 3)
    log = [_cut(line, width - 4, "red" if _is_alarming(line, seen) else "") for line in list(seen.lines)[-left:]]
    if log:
        parts.append(_panel("log", log))
    return Group(*parts)


def sparkline(values: Iterable[float | str], width: int) -> str:
    """A row of little bars, from the lowest value to the highest; what is no number leaves a gap.

    Args:
        values: oldest first; more than there are columns are averaged.
        width: columns.
    """
    numbers = [value if isinstance(value, (int, float)) and math.isfinite(value) else None for value in values]
    columns = min(len(numbers), max(1, width))
    means: list[float | None] = []
    for column in range(columns):
        begin, end = (len(numbers) * one // columns for one in (column, column + 1))
        known = [one for one in numbers[begin:end] if one is not None]
        means.append(sum(known) / len(known) if known else None)
    known = [one for one in means if one is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if one is None else _BARS[round((one - low) * scale)] for one in means)


def summary(seen: Seen) -> str:
    """One line of it all, for where there is no terminal."""
    now = seen.now
    parts = [] if now is None else [now.state + (f" #{now.attempt}" if now.attempt > 1 else "")]
    parts += [f"step {_step(seen)}"] if seen.step is not None else []
    latest = {name: values[-1] for name, values in seen.series.items()}
    parts += [f"{name}={table.number(value)}" for name, value in list(latest.items())[:_METRICS]]
    if now is not None and not now.ended:
        parts += [f"{table.number(now.steps_per_s)} steps/s"] if now.steps_per_s else []
        parts += [f"{table.duration(now.eta_s)} to go"] if now.eta_s is not None else []
        parts += [f"{_LOAD_NAMES[name]} {share:.0%}" for name, share in now.load.items() if name in _LOAD_NAMES]
    if now is not None and now.platform != "local" and now.cost_usd is not None:
        parts.append(f"{table.usd(now.cost_usd)} USD")
    return " · ".join(parts)


def _panel(title: str, lines: Sequence[RenderableType], style: str = "bright_black") -> Panel:
    return Panel(
        Group(*lines), title=title or None, title_align="left", box=box.ROUNDED, border_style=style, padding=(0, 1)
    )


def _head(seen: Seen, width: int) -> list[RenderableType]:
    from runctl.standing import place_of

    now = seen.now
    if now is None:
        step = f"  step {seen.step}" if seen.step is not None else ""
        return [Text.assemble((seen.title, "bold"), step, overflow="ellipsis", no_wrap=True)]
    where = place_of(now.platform, now.market, now.host)
    attempt = f"attempt {now.attempt}" if now.attempt > 1 else ""
    heard = f"heard {table.ago(now.heard_at, now.looked_at)}" if now.heard_at and not now.ended else ""
    about = [part for part in (attempt, where, heard) if part]
    state = (now.state, f"bold {table.COLOURS.get(now.state, '')}".strip())
    told = "".join(f" · {part}" for part in about)
    first = Text.assemble((now.run_id, "bold"), "  ", state, told, overflow="ellipsis", no_wrap=True)
    lines: list[RenderableType] = [first]
    if now.ended and now.reason:
        lines.append(_cut(now.reason.splitlines()[0], width))
    far = [f"step {_step(seen)}" if seen.step is not None else ""]
    if not now.ended:
        far.append(f"{table.number(now.steps_per_s)} steps/s" if now.steps_per_s else "")
        far.append(f"ETA {table.duration(now.eta_s)}" if now.eta_s is not None else "")
    far.append(_cost(now, seen.max_usd))
    progress = " · ".join(part for part in far if part)
    if now.total_steps and seen.step is not None:
        share = min(1.0, seen.step / now.total_steps)
        row = Table.grid(expand=True, padding=(0, 1))
        row.add_column(ratio=1)
        row.add_column(justify="right", no_wrap=True)
        row.add_row(ProgressBar(total=1.0, completed=share, complete_style="green"), f"{share:.0%}")
        lines.append(row)
    if progress:
        lines.append(_cut(progress, width))
    if seen.trouble:
        lines.append(_cut(f"as it was seen last: {seen.trouble}", width, "yellow"))
    return lines


def _step(seen: Seen) -> str:
    total = seen.now.total_steps if seen.now is not None else None
    return f"{seen.step} of {total}" if total else str(seen.step)


def _cost(now: Standing, max_usd: float | None) -> str:
    if now.platform == "local" and not now.cost_usd:
        return ""
    return f"{table.usd(now.cost_usd)} USD" + (f" of {max_usd:g}" if max_usd is not None else "")


def _metrics(seen: Seen, width: int) -> list[RenderableType]:
    shown = list(seen.series.items())[:_METRICS]
    name_width = max((len(name) for name, _ in shown), default=0)
    lines: list[RenderableType] = []
    for name, values in shown:
        value = table.number(values[-1])
        wrong = isinstance(values[-1], str)
        line = Text(f"{name:<{name_width}}  {value:>10}  ", no_wrap=True, overflow="crop")
        line.stylize("bold red" if wrong else "bold", name_width, name_width + 12)
        line.append(sparkline(values, max(8, width - name_width - 14)), "cyan")
        lines.append(line)
    if len(seen.series) > len(shown):
        lines.append(Text(f"and {len(seen.series) - len(shown)} more", "bright_black"))
    return lines


def _load(seen: Seen, width: int) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for name, label in _LOAD_NAMES.items():
        if not seen.load.get(name):
            continue
        share = seen.load[name][-1]
        colour = "red" if share > _FULL and "memory" in name else "green" if share > _BUSY else "yellow"
        filled = round(share * 20)
        history = _levels(seen.load[name], max(8, width - 41))
        line = Text(f"{label:<10}  ", no_wrap=True, overflow="crop")
        line.append(f"{share:>5.0%} ", "bold")
        line.append("█" * filled, colour).append("░" * (20 - filled), "bright_black")
        lines.append(line.append("  ").append(history, "cyan"))
    return lines


def _levels(shares: Iterable[float], width: int) -> str:
    """Shares as little bars from nothing to all, the newest that find place."""
    return "".join(_BARS[round(share * (len(_BARS) - 1))] for share in list(shares)[-width:])


def _attempts(seen: Seen) -> list[RenderableType]:
    """Of a run that had more than one; the newest."""
    if len(seen.attempts) < 2 or seen.now is None:
        return []
    return [_attempt(one, seen.now) for one in seen.attempts[-_ATTEMPTS:]]


def _attempt(one: Attempt, now: Standing) -> Text:
    from runctl.standing import attempt_cost_usd

    took = table.duration((one.ended_at or now.looked_at) - one.started_at)
    step = now.step if one.number == now.attempt else one.step
    steps = "" if step is None else f"{one.resumed_from_step or 0}–{step}"
    cost = f"{table.usd(attempt_cost_usd(one, now.billed_until))} USD" if one.market != "own" else ""
    why = _printed((one.end_reason.splitlines() or [""])[0])
    state = one.state.value
    return Text.assemble(
        f"{one.number:>2} ", (f"{state:<12}", table.COLOURS.get(state, "")), f"{steps:<15} {took:>6}  {cost:<10} {why}",
        no_wrap=True, overflow="ellipsis",
    )  # fmt: skip


def _alerts(seen: Seen) -> list[RenderableType]:
    shown = seen.alerts[-_ALERTS:]
    lines: list[RenderableType] = []
    for one in shown:
        count = f" (×{one.count})" if one.count > 1 else ""
        at = table.moment(one.at)[11:]
        lines.append(Text(f"{at} {_printed(one.what)}{count}", "red", no_wrap=True, overflow="ellipsis"))
    if len(seen.alerts) > len(shown):
        lines.append(Text(f"and {len(seen.alerts) - len(shown)} before", "bright_black"))
    return lines


def _is_alarming(line: str, seen: Seen) -> bool:
    return any(one.what == line.strip() for one in seen.alerts)


def _printed(text: str) -> str:
    """Without what takes no column of a terminal, and would have a frame stand askew: colours, other controls."""
    return _CONTROLS.sub("", text)


def _cut(line: str, width: int, style: str = "") -> Text:
    text = Text(_printed(line.expandtabs()), style, no_wrap=True, overflow="ellipsis")
    text.truncate(width, overflow="ellipsis")
    return text
