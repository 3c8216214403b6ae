"""What `runctl` takes to answer: its help, 10,000 runs in `ps`, the first line of a log of a gigabyte.

    python benchmarks/listing.py [RUNS] [MEGABYTES]

The goals: help within 0.3 s, `ps -a` of 10,000 runs within 0.5 s, the first line of a log of 1 GB within 0.5 s and all
of it in no more than 100 MB of memory. The median of five, of processes of their own.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from runctl.cost import Bill
from runctl.outcome import Attempt
from runctl.registry import Entry, Registry
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Program, RunIdentity, RunState
from runctl.standing import Standing, look

RUNCTL = str(Path(sys.executable).with_name("runctl"))
ROUNDS = 5
LINE = b"step=%09d loss=0.1234567 lr=0.0003 tokens_per_s=123456 " + b"x" * 41 + b"\n"


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = str(Path(folder, "state"))
        os.chdir(folder)
        _note(runs)
        _log(megabytes)
        print(f"{'':<44} {'s':>8} {'CPU s':>8} {'goal':>8}")
        row("runctl --help", 0.3, lambda: whole("--help"))
        row(f"runctl ps -a -n {runs}", 0.5, lambda: whole("ps", "-a", "-n", str(runs)))
        row(f"runctl ps -a -n {runs} --json", None, lambda: whole("ps", "-a", "-n", str(runs), "--json"))
        row("runctl ps", None, lambda: whole("ps"))
        row(f"runctl cost of {runs} runs", None, lambda: whole("cost", "--since", "3650d"))
        row(f"runctl logs, {megabytes} MB: first line", 0.5, lambda: first_line("logs", "talks"))
        peak, took = memory("logs", "talks")
        print(f"runctl logs, {megabytes} MB: all of it {took:.1f} s, at most {peak / 1e6:.0f} MB of memory (goal: 100)")


def row(what: str, goal: float | None, measure: Callable[[], float]) -> None:
    """Measure several times; the processor's time tells what a busy machine's clock does not."""
    walls, cpu = [], []
    for _ in range(ROUNDS):
        before = _cpu_s()
        walls.append(measure())
        cpu.append(_cpu_s() - before)
    wall = statistics.median(walls)
    aim = "" if goal is None else f"{goal:>8.2f} {'ok' if wall <= goal else 'MISSED'}"
    print(f"{what:<44} {wall:>8.2f} {statistics.median(cpu):>8.2f} {aim}", flush=True)


def _cpu_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def whole(*words: str) -> float:
    began = time.perf_counter()
    subprocess.run([RUNCTL, *words], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def first_line(*words: str) -> float:
    began = time.perf_counter()
    with subprocess.Popen([RUNCTL, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as command:
        assert command.stdout is not None
        command.stdout.readline()
        took = time.perf_counter() - began
        command.kill()
    return took


def memory(*words: str) -> tuple[float, float]:
    """The peak of the resident memory in bytes, and how long it took."""
    began, peak = time.perf_counter(), 0
    with subprocess.Popen([RUNCTL, *words], stdout=subprocess.DEVNULL) as command:
        process = psutil.Process(command.pid)
        while command.poll() is None:
            try:
                peak = max(peak, process.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(0.01)
    return float(peak), time.perf_counter() - began


def _note(count: int) -> None:
    """Runs in the index, as looking at them leaves them there; all have ended."""
    now = time.time()
    entries: list[Entry] = []
    for number in range(count):
        run_id = f"train-{number:05d}"
        at = now - 60 * number
        seen = Standing(
            run_id, f"train-{number % 50}", f"s3://bucket/runs/{run_id}", "aws", "succeeded", "train.py", attempt=1,
            host="ip-10-0-0-1", market="spot", began_at=at, ended_at=at + 50, step=1000, total_steps=1000,
            metrics={"loss": 0.5, "lr": 1e-4, "grad_norm": 1.0}, cost_usd=0.5, checkpoints=(500, 1000),
            tags={"team": "red"}, looked_at=at + 60,
        )  # fmt: skip
        entries.append(seen.entry(at))
    Registry().note_all(entries)
    one = Bill(
        1, "aws", "spot", "g6.xlarge", "succeeded", now, now + 50, 50.0, 0.4, 0.4, 0.1, 0.5, True, 9.6, 0.5, 0.0, 0
    )
    Registry().keep_bills({entry.url: [one] for entry in entries})


def _log(megabytes: int) -> None:
    root = str(Path("runs").absolute())
    rundir = RunDir(run_url(root, "talks"))
    rundir.write_spec(LaunchSpec(RunIdentity("talks", "talks", root), Program("train.py", None)))
    now = time.time()
    rundir.write_attempt(Attempt(1, "local", "h", "own", now - 60, now, RunState.SUCCEEDED, 0))
    stream = rundir.log_stream(1, 0, "r0")
    lines = 1_000_000 // len(LINE % 0)
    for block in range(megabytes):
        stream.append(b"".join(LINE % (block * lines + number) for number in range(lines)))
    stream.close()
    Registry().note(look(rundir).entry())


if __name__ == "__main__":
    main()
