"""`runctl report`: a run as one HTML file."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made import Home

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.manifest import Manifest
from runctl.checkpoint.remote import RemoteCatalog
from runctl.outcome import Attempt
from runctl.report import figures, record
from runctl.rundir import RunDir
from runctl.spec import CheckpointPolicy, RunState
from runctl.storage import open_store

BEGAN_AT = 1_790_000_000.0
MINUTE = 60.0


def storied(home: Home, run_id: str = "storied", *, rate: float = 1.0) -> RunDir:
    """A run on spot hosts: interrupted at step 190, resumed from 150, stalled for five minutes, done at step 400."""
    config = f"args: {{lr: {0.1 * rate}}}\nscript: train.py\n"
    rundir = home.run(run_id, step=400, attempts=2, began_at=BEGAN_AT, config=config, noted=True)
    first = Attempt(
        1, "aws", "i-0aaa", "spot", BEGAN_AT, BEGAN_AT + 20 * MINUTE, RunState.INTERRUPTED, 71, "spot notice",
        step=190, price_usd_per_hour=0.36, cost_usd=0.12,
    )  # fmt: skip
    second = Attempt(
        2, "aws", "i-0bbb", "spot", BEGAN_AT + 25 * MINUTE, BEGAN_AT + 56 * MINUTE, RunState.SUCCEEDED, 0, "succeeded",
        resumed_from_step=150, step=400, price_usd_per_hour=0.42, cost_usd=0.217,
    )  # fmt: skip
    metrics, usage, events = rundir.metrics_stream("a1-n0"), rundir.usage_stream("a1-n0"), rundir.event_stream("a1-n0")
    for attempt, steps in ((first, range(1, 191)), (second, range(151, 401))):
        rundir.write_attempt(attempt)
        at = attempt.started_at + MINUTE
        for step in steps:
            at += 6.0 if step != 300 else 5 * MINUTE
            loss = "nan" if step == 7 else math.exp(-step / 90 * rate) + 0.02 * math.sin(step)
            rate_now = 0.1 * rate * (1 - step / 400)
            line = {"at": at, "attempt": attempt.number, "step": step, "loss": loss, "lr": rate_now}
            metrics.append(json.dumps(line).encode() + b"\n")
            if step % 50 == 0:
                events.append(
                    json.dumps({"at": at, "event": "checkpoint", "attempt": attempt.number, "step": step}).encode()
                    + b"\n"
                )
            if step % 5 == 0:
                told = {"gpu": 0.9 if step != 300 else 0.1, "gpu_memory": 0.6, "cpu": 0.3, "memory": 0.2}
                usage.append(json.dumps({"at": at, "attempt": attempt.number, **told}).encode() + b"\n")
    notice = {"at": BEGAN_AT + 18 * MINUTE, "event": "notice", "attempt": 1, "kind": "interruption"}
    events.append(json.dumps(notice).encode() + b"\n")
    for stream in (metrics, usage, events):
        stream.close()
    rundir.publish(
        "provenance/git.json", b'{"commit": "0123456789abcdef", "branch": "main", "dirty_files": [" M train.py"]}'
    )
    rundir.publish("provenance/git.diff", b"--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-lr = 1\n+lr = 2  # <b>\n")
    rundir.publish("provenance/versions.json", b'{"python": "3.11.7", "packages": {"torch": "2.13.0"}}')
    return rundir


class Page(HTMLParser):
    """What stands in a page, without its scripts, and what it would fetch."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.fetched, self.tags, self._in = "", [], [], ""
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in not in ("script", "style"):
            self.text += data + "\n"


def test_a_report_is_one_file_that_fetches_nothing(home: Home) -> None:
    storied(home)
    told = home.runctl("report", "storied").output
    page = Page(Path("storied.html"))
    assert told.startswith("storied.html (")
    assert page.fetched == [] and "default-src 'none'" in page.source
    assert page.source.count('class="card"') == 6, "loss, lr, speed, load, attempts, cost"
    assert [name for name in Path().iterdir() if name.name.startswith(".tmp-")] == []
    for part in (
        "succeeded", "spot notice", "0.337 USD", "0123456789ab and 1 changed", "args: {lr: 0.1}", "+lr = 2  # <b>",
        "attempt 2: no step after 299 for 5 min 00 s", "torch", "2.13.0",
    ):  # fmt: skip
        assert part in page.text, part
    assert "b" in page.tags and "# <b>" not in page.source


def test_charts_tell_what_counts(home: Home) -> None:
    run = record.read(storied(home))
    loss = figures.metric("loss", [run])
    assert loss is not None and list(loss.data[0].x) == list(range(1, 401)), "what was done again is there once"
    assert loss.data[0].y[6] is None, "NaN leaves a gap"
    assert [shape.x0 for shape in loss.layout.shapes] == [150]
    speed = figures.throughput([run])
    assert speed is not None
    rates = [rate for rate in speed.data[0].y if rate is not None]
    assert round(max(rates), 3) == round(1 / 6, 3) and min(rates) < 0.01
    spent = figures.cost([run])
    assert spent is not None and [round(usd, 3) for usd in spent.data[0].y] == [0.0, 0.12, 0.12, 0.337]
    load = figures.load([run])
    assert load is not None and [line.name for line in load.data] == ["GPU", "GPU memory", "CPU", "memory"]
    bars = figures.timeline([run])
    assert {line.name for line in bars.data} == {"interrupted", "succeeded", "stalled", "checkpoint", "notice"}
    marks = next(line for line in bars.data if line.name == "checkpoint")
    assert list(marks.y) == ["#1"] * 3 + ["#2"] * 5, "also those that were pruned, or done again"


def test_what_is_not_known_is_left_out(home: Home) -> None:
    home.run("bare")
    home.runctl("report", "bare", "-o", "out.html")
    page = Page(Path("out.html"))
    assert page.source.count('class="card"') == 1, "its attempt"
    assert "Cost" not in page.text and "Metrics" not in page.text
    assert "steps\n100\n" in page.text


def test_checkpoints_that_were_carried_elsewhere_are_told(home: Home, tmp_path: Path) -> None:
    rundir = home.run("carried")
    url = "memory://carried-elsewhere"
    rundir.write_spec(replace(rundir.read_spec(), checkpoint=CheckpointPolicy(url=url)))
    aside = tmp_path / ".tmp-50"
    aside.mkdir()
    folder = manifests.publish(aside, Manifest("carried", 1, 50, 0, 1, "blake2b", {}, created_at=BEGAN_AT))
    RemoteCatalog(open_store(f"{url}/carried")).publish(folder, set())
    assert record.read(rundir).checkpoints == [record.Checkpoint(50, BEGAN_AT)]


def test_several_runs_are_laid_over_each_other(home: Home) -> None:
    storied(home, "one")
    storied(home, "two", rate=2.0)
    told = json.loads(home.runctl("report", "one", "two", "one", "--json").output)
    assert (Path(told["file"]).name, told["runs"]) == ("report.html", ["one", "two"])
    page = Page(Path("report.html"))
    assert "2 runs" in page.text and "args.lr" in page.text and page.source.count('class="card"') == 6
    loss = figures.metric("loss", [record.read(RunDir(f"{home.root}/{name}")) for name in ("one", "two")])
    assert loss is not None and [line.name for line in loss.data] == ["one", "two"]


def test_a_sweep_is_all_of_its_runs_that_have_begun(home: Home) -> None:
    places = [storied(home, name, rate=rate).url for name, rate in (("job-1", 1.0), ("job-2", 2.0))]
    jobs = [{"run_id": place.rsplit("/", 1)[-1], "run_dir": place} for place in [*places, f"{home.root}/job-3"]]
    folder = Path(home.root, "sweeps", "rates")
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    for word in ("rates", str(folder)):
        told = json.loads(home.runctl("report", word, "--json").output)
        assert (Path(told["file"]).name, told["runs"]) == ("rates.html", ["job-1", "job-2"])
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs[2:]}))
    assert "none of its 1 runs has begun" in home.runctl("report", "rates", expect=2).stderr
    assert "no run is called nothing" in home.runctl("report", "nothing", expect=2).stderr


def test_words_of_others_do_not_become_part_of_the_page(home: Home) -> None:
    rundir = home.run("odd", config="args: {x: '</pre><script>alert(1)</script>'}\n", name="<i>odd</i>")
    stream = rundir.metrics_stream("a1-n0")
    name = "</script><script>alert(2)</script>"
    stream.append(json.dumps({"at": 1.0, "attempt": 1, "step": 1, name: 2.0}).encode() + b"\n")
    stream.close()
    home.runctl("report", "odd")
    source = Path("odd.html").read_text()
    assert "<script>alert" not in source and "<i>" not in source


def test_long_lines_are_thinned_and_keep_their_extremes() -> None:
    ys = [0.0] * 100_000
    ys[54_321] = 9.0
    xs, thinned = figures._thinned(list(range(len(ys))), ys)
    assert len(xs) <= 3000 and thinned[xs.index(54_321)] == 9.0 and xs == sorted(xs)


def test_a_place_that_cannot_be_written_is_said(home: Home) -> None:
    storied(home)
    assert "a folder" in home.runctl("report", "storied", "-o", ".", expect=2).stderr
    assert "nowhere" in home.runctl("report", "storied", "-o", "nowhere/x.html", expect=2).stderr


def test_without_plotly_it_says_what_to_install(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert re.search(r"pip install 'runctl\[report\]'", home.runctl("report", "x", expect=2).stderr)


def test_more_news_of_a_step_is_no_second_stall(home: Home) -> None:
    rundir = home.run("slow", began_at=BEGAN_AT)
    lines = [{"at": BEGAN_AT + 6.0 * step, "attempt": 1, "step": step} for step in range(1, 11)]
    last = BEGAN_AT + 60.0
    more = [{"at": last + 120, "step": 10, "val_loss": 0.5}, {"at": last + 300, "step": 11}]
    lines += [{**one, "attempt": 1} for one in more]
    stream = rundir.metrics_stream("a1-n0")
    stream.append(b"".join(json.dumps(one).encode() + b"\n" for one in lines))
    stream.close()
    assert [(one.begin, one.end) for one in record.read(rundir).stalls()] == [(last, last + 300)]
