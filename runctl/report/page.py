"""The file: charts, tables and texts of runs in one page that needs nothing else."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from plotly.offline import get_plotlyjs

from runctl.arguments import flatten
from runctl.report import figures
from runctl.report.record import RunRecord
from runctl.standing import attempt_cost_usd, place_of

_FIRST = ("loss", "train_loss", "val_loss")
_LEARNING_RATE = ("lr", "learning_rate")
#: Once all have their places. With a finger one scrolls, and does not zoom into charts by accident.
_DRAW = """
const mouse = matchMedia("(hover: hover)").matches;
const config = {displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"]};
for (const [id, figure] of Object.entries(FIGURES)) {
  const layout = {...figure.layout, ...(mouse ? {} : {dragmode: false})};
  Plotly.newPlot(id, figure.data, layout, mouse ? config : {...config, displayModeBar: false});
}
"""
#: Nothing may be fetched, whatever stands in the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
_STYLE = """
:root { color-scheme: light; --line: #ddd; --dim: #666; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 16px; font: 15px/1.45 system-ui, sans-serif; color: #222; }
h1 { font-size: 24px; margin: 4px 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 28px 0 8px; border-bottom: 1px solid var(--line); padding-bottom: 4px; }
h3 { font-size: 15px; font-weight: 600; margin: 14px 0 2px; overflow-wrap: anywhere; }
.card h3 { margin: 6px 8px 0; }
td:last-child { min-width: 200px; }
.dim { color: var(--dim); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 12px; }
.card { border: 1px solid var(--line); border-radius: 8px; min-width: 0; overflow: hidden; padding: 4px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 8px; margin: 12px 0; }
.fact { border: 1px solid var(--line); border-radius: 8px; padding: 6px 10px; overflow-wrap: anywhere; }
.fact b { display: block; font-size: 17px; }
.state { display: inline-block; border-radius: 10px; padding: 0 10px; color: #fff; background: #666; font-size: 14px; }
.state.succeeded { background: #0072B2; } .state.running { background: #00805c; } .state.failed { background: #b84a00; }
.state.interrupted { background: #a84f83; } .state.lost { background: #b84a00; }
.wide { overflow-x: auto; margin-top: 8px; }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 600; white-space: nowrap; }
td:not(:last-child) { white-space: nowrap; } td { font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; padding: 10px; margin: 8px 0;
  font: 12.5px/1.4 ui-monospace, monospace; background: #fafafa; max-height: 640px; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
summary { cursor: pointer; padding: 4px 0; }
.plus { color: #00660a; } .minus { color: #a01414; } .hunk { color: #6f42c1; }
"""


def page(records: Sequence[RunRecord]) -> str:
    """The whole file.

    Args:
        records: one run, or several to be laid over each other.
    """
    charts: dict[str, Any] = {}

    def section(title: str, *found: Any) -> str:
        cards = []
        for chart in found:
            if chart is not None:
                name = f"chart-{len(charts) + 1}"
                charts[name] = chart
                place = f'<div id="{name}" style="height: {chart.layout.height}px"></div>'
                heading = f"<h3>{_text(chart.layout.meta)}</h3>" if chart.layout.meta else ""
                cards.append(f'<div class="card">{heading}{place}</div>')
        return f'<h2>{title}</h2><div class="grid">{"".join(cards)}</div>' if cards else ""

    title = records[0].now.run_id if len(records) == 1 else f"{len(records)} runs"
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(max(one.now.looked_at for one in records)))
    parts = [_head(records[0]) if len(records) == 1 else _side_by_side(records)]
    parts.append(section("Metrics", *_metrics(records)))
    parts.append(section("Speed and load", figures.throughput(records), figures.load(records)))
    parts.append(section("Attempts", figures.timeline(records)))
    parts += [_attempts(one, several=len(records) > 1) for one in records]
    parts.append(section("Cost in USD", figures.cost(records)))
    parts += ["<h2>Configuration and code</h2>"] if len(records) > 1 else []
    parts += [_texts(one, several=len(records) > 1) for one in records]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style><script>{get_plotlyjs()}</script></head>\n<body>"
        f'<p class="dim">runctl report, {made}</p>{"".join(parts)}'
        f"<script>const FIGURES = {_json(charts)};{_DRAW}</script></body></html>\n"
    )


def _json(charts: Mapping[str, Any]) -> str:
    """Figures by the id of their place; nothing in them can end the script around them."""
    figures_json = ", ".join(f'"{name}": {chart.to_json()}' for name, chart in charts.items())
    return f"{{{figures_json}}}".replace("<", "\\u003c")


def _head(record: RunRecord) -> str:
    now = record.now
    words = " ".join([now.script, *record.spec.script_words()])
    seconds = sum(record.end_of(one) - one.started_at for one in record.attempts)
    rented = now.platform != "local" or bool(now.cost_usd)
    facts = {
        "steps": "" if now.step is None else f"{now.step}" + (f" of {now.total_steps}" if now.total_steps else ""),
        **{name: _number(value) for name, value in now.metrics.items()},
        "time in attempts": _duration(seconds),
        "attempts": str(len(record.attempts)),
        "cost": "" if not rented else "not known" if now.cost_usd is None else f"{now.cost_usd:.4g} USD",
        "checkpoints kept": str(len(now.checkpoints)) if now.checkpoints else "",
        "where": place_of(now.platform, now.market, now.host),
        "commit": _commit(record),
    }
    cards = [f'<div class="fact"><span class="dim">{_text(name)}</span><b>{_text(value)}</b></div>'
             for name, value in facts.items() if value]  # fmt: skip
    told = (now.reason.splitlines() or [""])[0]
    reason = f'<p class="dim">{_text(told)}</p>' if told not in ("", now.state) else ""
    return (
        f"<h1>{_text(now.run_id)} {_state(now.state)}</h1><code>{_text(words)}</code>{reason}"
        f'<div class="facts">{"".join(cards)}</div>'
    )


def _side_by_side(records: Sequence[RunRecord]) -> str:
    """A table of several runs: how they ended, and where their configurations differ."""
    configs = [_flat(one.config) for one in records]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    own = ("run.id", "run.name")
    differing = [key for key in keys if key not in own and len({str(one.get(key)) for one in configs}) > 1]
    names = list(dict.fromkeys(name for one in records for name in one.now.metrics))
    rows = [
        [f"<b>{_text(one.now.run_id)}</b>", _state(one.now.state), _text("" if one.now.step is None else one.now.step),
         *(_text(_number(one.now.metrics.get(name))) for name in names),
         _text("" if not one.now.cost_usd else f"{one.now.cost_usd:.4g}"),
         *(_text(config.get(key, "–")) for key in differing)]
        for one, config in zip(records, configs, strict=True)
    ]  # fmt: skip
    headings = ["run", "state", "steps", *names, "USD", *differing]
    return f"<h1>{len(records)} runs</h1>{_table(headings, rows)}"


def _metrics(records: Sequence[RunRecord]) -> list[Any]:
    names = list(dict.fromkeys(name for one in records for name in one.metric_names()))
    names.sort(key=lambda name: (name not in _FIRST, "loss" not in name, name in _LEARNING_RATE))
    return [figures.metric(name, records) for name in names]


def _attempts(record: RunRecord, *, several: bool) -> str:
    rows = []
    for one in record.attempts:
        cost = attempt_cost_usd(one, record.now.billed_until) if one.market != "own" else 0.0
        steps = "" if one.step is None else f"{one.resumed_from_step or 0}–{one.step}"
        place = place_of(one.platform, one.market, one.host)
        rows.append([
            _text(one.number), _state(one.state.value), _text(steps),
            _text(_duration(record.end_of(one) - one.started_at)),
            _text("?" if cost is None else f"{cost:.4g}" if cost else ""), _text(place), _text(one.end_reason),
        ])  # fmt: skip
    for stall in record.stalls():
        note = f"attempt {stall.attempt}: no step after {stall.step} for {_duration(stall.end - stall.begin)}"
        rows.append(["", "stalled", "", _text(_duration(stall.end - stall.begin)), "", "", _text(note)])
    title = f"<h3>{_text(record.now.run_id)}</h3>" if several else ""
    return title + _table(["#", "state", "steps", "time", "USD", "where", "why it ended"], rows)


def _texts(record: RunRecord, *, several: bool) -> str:
    """Configuration, changes and versions; folded where there are several runs."""
    name = f" of {_text(record.now.run_id)}" if several else ""
    parts = [("Effective configuration", f"<pre>{_text(record.config)}</pre>")]
    if record.git:
        commit = f"<p>Commit <code>{_text(record.git.get('commit'))}</code> on {_text(record.git.get('branch'))}.</p>"
        diff = f"<pre>{_coloured_diff(record.diff)}</pre>" if record.diff else "<p>Nothing had been changed since.</p>"
        parts.append(("Code", commit + diff))
    if record.versions:
        told = {**record.versions, "packages": None, **(record.versions.get("packages") or {})}
        rows = [[_text(key), _text(value)] for key, value in told.items() if value is not None]
        parts.append(("Versions", _table(["", ""], rows)))
    if several:
        return "".join(f"<details><summary>{title}{name}</summary>{body}</details>" for title, body in parts)
    return "".join(f"<h2>{title}</h2>{body}" for title, body in parts)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; a column that is empty in every row is left out."""
    kept = [column for column in range(len(headings)) if any(row[column] for row in rows)]
    head = "".join(f"<th>{_text(headings[column])}</th>" for column in kept)
    body = "".join("<tr>" + "".join(f"<td>{row[column]}</td>" for column in kept) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>' if rows else ""


def _coloured_diff(diff: str) -> str:
    marks = {"+": "plus", "-": "minus", "@": "hunk"}
    lines = []
    for line in diff.splitlines():
        mark = marks.get(line[:1])
        lines.append(f'<span class="{mark}">{_text(line)}</span>' if mark else _text(line))
    return "\n".join(lines)


def _flat(config: str) -> Mapping[str, Any]:
    try:
        read = yaml.safe_load(config)
    except yaml.YAMLError:
        return {}
    return flatten(read) if isinstance(read, dict) else {}


def _commit(record: RunRecord) -> str:
    commit = str(record.git.get("commit", ""))[:12]
    dirty = len(record.git.get("dirty_files", ()))
    return commit + (f" and {dirty} changed" if dirty else "")


def _state(state: str) -> str:
    return f'<span class="state {_text(state)}">{_text(state)}</span>'


def _number(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"


def _text(value: object) -> str:
    return html.escape(str(value))
