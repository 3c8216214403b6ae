"""The charts of a report; each takes one run or several."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from runctl.report.record import RunRecord
from runctl.standing import attempt_cost_usd

#: Told apart by those who see no red or no green, too: Okabe and Ito's palette, without its yellow.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_STATES = {"succeeded": "#0072B2", "running": "#009E73", "stopping": "#009E73", "stopped": "#999999",
           "interrupted": "#CC79A7", "failed": "#D55E00", "pending": "#999999"}  # fmt: skip
_MARKS = {"checkpoint": "diamond", "notice": "triangle-down", "restarted": "cross"}
_LOAD = {"gpu": ("GPU", "solid"), "gpu_memory": ("GPU memory", "dash"), "cpu": ("CPU", "solid"),
         "memory": ("memory", "dash")}  # fmt: skip
#: A line of more points is thinned to the lowest and highest of so many stretches.
_STRETCHES = 1500
_WINDOWS = 200
_ROW_PX = 42

Records = Sequence[RunRecord]


def metric(name: str, records: Records) -> go.Figure | None:
    """One metric over steps, or over epochs of a training that names no steps; None if nobody has it."""
    figure = _figure(name)
    place = "step" if any("step" in one for record in records for one in record.metrics) else "epoch"
    for record, colour in _coloured(records):
        told = [(one[place], one[name]) for one in record.metrics if name in one and place in one]
        if not told:
            continue
        xs, ys = _thinned([x for x, _ in told], [_finite(y) for _, y in told])
        mode = "lines" if len(xs) > 60 else "lines+markers"
        _add(figure, record, xs, ys, colour, mode=mode, marker={"size": 5})
    if len(records) == 1:
        for attempt in records[0].attempts:
            if attempt.resumed_from_step is not None and place == "step":
                figure.add_vline(x=attempt.resumed_from_step, line_dash="dot", line_color="#CC79A7", line_width=1)
    figure.update_xaxes(title=place)
    return figure if figure.data else None


def throughput(records: Records) -> go.Figure | None:
    """Steps a second over time."""
    figure = _figure("steps per second")
    unit_s, unit = _unit(records)
    for record, colour in _coloured(records):
        xs: list[float] = []
        ys: list[float | None] = []
        for attempt in record.attempts:
            told = record.steps_of(attempt)
            size = max(1, len(told) // _WINDOWS)
            ends = told[::size]
            for (before, first), (at, last) in itertools.pairwise(ends):
                if at > before and last > first:
                    xs.append((at - record.began_at) / unit_s)
                    ys.append((last - first) / (at - before))
            xs.append((record.end_of(attempt) - record.began_at) / unit_s)
            ys.append(None)  # no line from one attempt to the next
        if any(y is not None for y in ys):
            _add(figure, record, xs, ys, colour)
    figure.update_xaxes(title=unit)
    figure.update_yaxes(rangemode="tozero")
    return figure if figure.data else None


def load(records: Records) -> go.Figure | None:
    """How busy hosts were over time; of several runs their GPUs, or their processors where there are none."""
    figure = _figure("load of the host")
    unit_s, unit = _unit(records)
    several = len(records) > 1
    for record, colour in _coloured(records):
        known = [name for name in _LOAD if any(name in one for one in record.usage)]
        for number, name in enumerate(known[:1] if several else known):
            label, dash = _LOAD[name]
            told = [one for one in record.usage if name in one]
            xs = [(float(one["at"]) - record.began_at) / unit_s for one in told]
            xs, ys = _thinned(xs, [float(one[name]) for one in told])
            own = colour if several else _COLOURS[0 if name.startswith("gpu") else 1]
            title = f"{record.now.run_id} {label}" if several else label
            figure.add_scatter(
                x=xs, y=ys, name=title, mode="lines+markers" if len(xs) < 3 else "lines", showlegend=True,
                line={"color": own, "dash": dash, "width": 1.8}, legendrank=number,
            )  # fmt: skip
    figure.update_xaxes(title=unit)
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%")
    return figure if figure.data else None


def timeline(records: Records) -> go.Figure:
    """The attempts as bars over time, with checkpoints, stalls, notices and restarts on them."""
    figure = _figure("")
    unit_s, unit = _unit(records)
    rows: list[str] = []
    in_legend: set[str] = set()
    marks: dict[str, dict[str, list[Any]]] = {}
    for record in records:
        for attempt in record.attempts:
            row = f"#{attempt.number}" if len(records) == 1 else f"{record.now.run_id} #{attempt.number}"
            rows.append(row)
            begin, end = attempt.started_at, record.end_of(attempt)
            state = attempt.state.value
            why = _wrapped(attempt.end_reason or state)
            about = f"{row}: {state}<br>{_clock(begin)} – {_clock(end)}<br>{attempt.platform} {attempt.host}<br>{why}"
            figure.add_bar(
                y=[row], x=[(end - begin) / unit_s], base=[(begin - record.began_at) / unit_s], orientation="h",
                marker_color=_STATES.get(state, "#999999"), width=0.55, name=state, legendgroup=state,
                showlegend=state not in in_legend, hovertext=about, hoverinfo="text",
            )  # fmt: skip
            in_legend.add(state)
            for kind, at, told in _on(record, attempt.number):
                points = marks.setdefault(kind, {"x": [], "y": [], "text": []})
                points["x"].append((at - record.began_at) / unit_s)
                points["y"].append(row)
                points["text"].append(f"{told}<br>{_clock(at)}")
        for stall in record.stalls():
            row = f"#{stall.attempt}" if len(records) == 1 else f"{record.now.run_id} #{stall.attempt}"
            lasted_s = stall.end - stall.begin
            figure.add_bar(
                y=[row], x=[lasted_s / unit_s], base=[(stall.begin - record.began_at) / unit_s], orientation="h",
                marker_color="#E69F00", width=0.25, name="stalled", legendgroup="stalled", hoverinfo="text",
                showlegend="stalled" not in in_legend, hovertext=f"no step after {stall.step} for {lasted_s:.0f} s",
            )  # fmt: skip
            in_legend.add("stalled")
    for kind, points in marks.items():
        marker = {"symbol": _MARKS[kind], "size": 9, "color": "white", "line": {"width": 1.2, "color": "#222"}}
        figure.add_scatter(
            x=points["x"],
            y=points["y"],
            text=points["text"],
            mode="markers",
            name=kind,
            hoverinfo="text",
            marker=marker,
        )
    figure.update_layout(barmode="overlay", height=110 + _ROW_PX * max(1, len(rows)))
    figure.update_yaxes(categoryorder="array", categoryarray=rows[::-1], automargin=True)
    figure.update_xaxes(title=unit, rangemode="tozero")
    return figure


def cost(records: Records) -> go.Figure | None:
    """What hosts cost altogether, as it grew; None where nothing was paid, or no price is known."""
    figure = _figure("")
    unit_s, unit = _unit(records)
    for record, colour in _coloured(records):
        total, xs, ys = 0.0, [], []
        for attempt in record.attempts:
            spent = attempt_cost_usd(attempt, record.now.billed_until)
            begin = attempt.billed_since
            xs += [(at - record.began_at) / unit_s for at in (begin, record.end_of(attempt))]
            ys += [total, total + (spent or 0.0)]
            total += spent or 0.0
        if total > 0:
            _add(figure, record, xs, ys, colour)
            limit = record.spec.limits.max_usd
            if limit is not None and len(records) == 1:
                figure.add_hline(y=limit, line_dash="dot", line_color="#D55E00", annotation_text="limits.max_usd")
    figure.update_xaxes(title=unit)
    figure.update_yaxes(rangemode="tozero")
    return figure if figure.data else None


def _on(record: RunRecord, attempt: int) -> Iterable[tuple[str, float, str]]:
    """What stands on an attempt's bar: kind, time, words."""
    spans = {one.number: (one.started_at, record.end_of(one)) for one in record.attempts}
    begin, end = spans[attempt]
    for checkpoint in record.checkpoints:
        if begin <= checkpoint.at <= end:
            yield "checkpoint", checkpoint.at, f"checkpoint of step {checkpoint.step}"
    for event in record.events:
        if event.get("attempt") != attempt:
            continue
        if event["event"] == "notice":
            yield "notice", float(event["at"]), f"notice: {event.get('kind', '')}"
        elif event["event"] == "restarted":
            yield "restarted", float(event["at"]), _wrapped(f"ranks restarted: {event.get('reason') or ''}")


def _figure(title: str) -> go.Figure:
    """An empty chart; its title, if it needs one, stands in `meta`, for the page to write above it."""
    figure = go.Figure()
    figure.update_layout(
        template="plotly_white", meta=title, height=280, margin={"l": 48, "r": 16, "t": 12, "b": 44},
        hovermode="closest",
        font={"family": "system-ui, sans-serif", "size": 12, "color": "#222"},
        legend={"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    figure.update_xaxes(automargin=True, zeroline=False)
    figure.update_yaxes(automargin=True, zeroline=False)
    return figure


def _add(
    figure: go.Figure, record: RunRecord, xs: Sequence[float], ys: Sequence[float | None], colour: str, **more: Any
) -> None:
    figure.add_scatter(
        x=xs, y=ys, name=_escaped(record.now.run_id), line={"color": colour, "width": 1.8},
        **{"mode": "lines", **more},
    )  # fmt: skip


def _coloured(records: Records) -> Iterable[tuple[RunRecord, str]]:
    return ((record, _COLOURS[number % len(_COLOURS)]) for number, record in enumerate(records))


def _thinned(xs: Sequence[float], ys: Sequence[float | None]) -> tuple[list[float], list[float | None]]:
    """A line of few points that looks as the whole one does."""
    if len(xs) <= 2 * _STRETCHES:
        return list(xs), list(ys)
    kept: list[int] = []
    for number in range(_STRETCHES):
        begin, end = (len(xs) * one // _STRETCHES for one in (number, number + 1))
        known = {index: y for index in range(begin, end) if (y := ys[index]) is not None}
        kept += sorted({min(known, key=known.__getitem__), max(known, key=known.__getitem__)}) if known else [begin]
    return [xs[index] for index in kept], [ys[index] for index in kept]


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _unit(records: Records) -> tuple[float, str]:
    """What times since the begin are counted in: seconds in one, and what it is called."""
    ends = [record.end_of(one) - record.began_at for record in records for one in record.attempts]
    longest_s = max(ends, default=0.0)
    return (3600.0, "hours") if longest_s > 2 * 3600 else (60.0, "minutes") if longest_s > 120 else (1.0, "seconds")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _escaped(text: str) -> str:
    """Plotly reads tags in what it writes."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _wrapped(text: str, width: int = 60) -> str:
    line = text.splitlines()[0] if text else ""
    return "<br>".join(_escaped(line[begin : begin + width]) for begin in range(0, min(len(line), 5 * width), width))
