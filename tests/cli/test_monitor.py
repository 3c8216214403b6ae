"""`runctl monitor`: a run at a glance, once and live, and any text log."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made import Home
from rich.cells import cell_len

from runctl import standing
from runctl.cli import monitored
from runctl.cli.dashboard import sparkline
from runctl.cli.monitored import MonitoredRun
from runctl.outcome import Attempt
from runctl.rundir import RunDir
from runctl.spec import RunState

BIN = Path(sys.executable).parent


def train(
    rundir: RunDir, *, attempt: int = 1, steps: int = 100, every_s: float = 1.0, ended_s_ago: float = 0.0
) -> None:
    """Metrics of a training that told of its last step so long ago."""
    stream = rundir.metrics_stream(f"a{attempt}-n0")
    now = time.time()
    for step in range(1, steps + 1):
        at = now - ended_s_ago - (steps - step) * every_s
        stream.append(json.dumps({"at": at, "attempt": attempt, "step": step, "loss": 1 / step}).encode() + b"\n")
    stream.close()


def test_a_run_at_a_glance(home: Home) -> None:
    rundir = home.run("digits", state=RunState.RUNNING, log="step=1 loss=1.0\nwarming up\n")
    train(rundir)
    usage = rundir.usage_stream("a1-n0")
    usage.append(b'{"at": 1.0, "attempt": 1, "gpu": 0.91, "gpu_memory": 0.5, "cpu": 0.2, "memory": 0.1}\n')
    usage.close()
    text = home.runctl("monitor", "digits").output
    assert max(map(len, text.splitlines())) <= 80
    for part in (
        "running",
        "step 100 of 1000",
        "10%",
        "ETA 7m",
        "0.01  █",
        "GPU           91% ██████████████████░░",
        "warming up",
    ):
        assert part in text, text
    assert "alerts" not in text


def test_control_letters_of_a_log_leave_the_frame_straight(home: Home) -> None:
    home.run("odd", log="\0nul \x1b[31mred\x1b[0m \x07bell \x7f実験\nplain\n")
    lines = home.runctl("monitor", "odd").output.splitlines()
    [odd, plain] = [line for line in lines if "bell" in line or "plain" in line]
    assert "nul red bell 実験" in odd
    assert cell_len(odd) == len(odd) + 2 == len(plain)


def test_what_it_tells_programs(home: Home) -> None:
    train(home.run("digits", state=RunState.RUNNING, log="RuntimeError: no more\n"))
    told = json.loads(home.runctl("monitor", "digits", "--json").output)
    assert (told["run"]["state"], told["step"], told["metrics"]) == ("running", 100, {"loss": 0.01})
    assert [one["what"] for one in told["alerts"]] == ["RuntimeError: no more"]
    assert told["log"] == ["RuntimeError: no more"]


@pytest.mark.parametrize(
    ("line", "alarming"),
    [
        ("CUDA error: an illegal memory access was encountered", True),
        ("ERROR something broke", True),
        ("Traceback (most recent call last):", True),
        ("ValueError: no", True),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory", True),
        ("step=3 error=0.12 val_error=0.2", False),
        ("step 3 error: 0.12", False),
        ("terror and mirrors", False),
    ],
)
def test_lines_that_are_alerts(home: Home, line: str, *, alarming: bool) -> None:
    home.run("digits", log=f"{line}\n{line}\n")
    alerts = json.loads(home.runctl("monitor", "digits", "--json").output)["alerts"]
    assert [(one["what"], one["count"]) for one in alerts] == ([(line, 2)] if alarming else [])


def test_metrics_that_are_no_numbers_are_an_alert(home: Home) -> None:
    rundir = home.run("digits", state=RunState.RUNNING)
    train(rundir, steps=5)
    stream = rundir.metrics_stream("a1-n0")
    for step in (6, 7):
        stream.append(b'{"at": %f, "attempt": 1, "step": %d, "loss": "nan"}\n' % (time.time(), step))
    stream.close()
    alerts = json.loads(home.runctl("monitor", "digits", "--json").output)["alerts"]
    assert [(one["what"], one["count"]) for one in alerts] == [("loss is nan since step 6", 2)]
    assert "nan" in home.runctl("monitor", "digits").output


@pytest.mark.parametrize(("every_s", "silent_s", "stalled"), [(1.0, 50, False), (1.0, 70, True), (20.0, 70, False)])
def test_a_training_without_steps_is_an_alert(home: Home, every_s: float, silent_s: float, *, stalled: bool) -> None:
    train(home.run("digits", state=RunState.RUNNING), every_s=every_s, ended_s_ago=silent_s)
    alerts = [one["what"] for one in json.loads(home.runctl("monitor", "digits", "--json").output)["alerts"]]
    assert [bool(re.match("no new step for 1m", one)) for one in alerts] == ([True] if stalled else [])


def test_it_follows_a_rented_run_over_its_attempts(home: Home) -> None:
    rundir = home.run("rented", state=RunState.RUNNING)
    train(rundir, steps=50)
    source = MonitoredRun(rundir)
    assert source.look()
    first = Attempt(
        1, "aws", "i-1", "spot", time.time() - 60, time.time(), RunState.INTERRUPTED, end_reason="spot notice"
    )
    rundir.write_attempt(first)
    assert source.look(), "its launcher may rent another host"
    rundir.write_attempt(Attempt(2, "aws", "i-2", "spot", time.time(), resumed_from_step=40))
    rundir.beat(2, "i-2", 1, step=None)
    log = rundir.log_stream(2, 0, "r0")
    log.append(b"resumed from step 40\n")
    assert source.look()
    assert (source.seen.now and source.seen.now.attempt, source.seen.step) == (2, 40)
    assert source.seen.fresh == ["resumed from step 40"]
    rundir.write_attempt(Attempt(2, "aws", "i-2", "spot", time.time(), time.time(), RunState.SUCCEEDED))
    log.append(b"done\n")
    log.close()
    assert not source.look()
    assert source.seen.fresh == ["done"]


def test_a_run_that_nobody_takes_up_is_left_some_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = home.run("rented", state=RunState.RUNNING)
    lost_at = time.time() - 1000
    rundir.write_attempt(Attempt(1, "aws", "i-1", "spot", 1.0, lost_at, RunState.INTERRUPTED, end_reason="spot notice"))
    assert not MonitoredRun(rundir).look()
    monkeypatch.setattr(standing, "ANOTHER_S", 2000.0)
    assert MonitoredRun(rundir).look()


def test_the_time_without_a_host_is_no_stall(home: Home) -> None:
    rundir = home.run("rented", state=RunState.RUNNING, attempts=2)
    train(rundir, ended_s_ago=700)
    source = MonitoredRun(rundir)
    source.look()
    assert source.seen.alerts == [], "the second attempt has done no step yet"
    train(rundir, attempt=2, steps=5, ended_s_ago=1)
    source.look()
    assert source.seen.alerts == []


def test_a_last_line_without_an_end_is_shown_of_what_has_ended(home: Home) -> None:
    rundir = home.run("digits", state=RunState.RUNNING, log="one\nRuntimeError: the last words")
    assert json.loads(home.runctl("monitor", "digits", "--json").output)["log"] == ["one"], "more of it may come"
    rundir.write_attempt(Attempt(1, "aws", "i-1", "spot", 1.0, 2.0, RunState.FAILED, 1, "failed"))
    told = json.loads(home.runctl("monitor", "digits", "--json").output)
    assert (told["log"][-1], len(told["alerts"])) == ("RuntimeError: the last words", 1)
    Path("train.log").write_text("step=1\nRuntimeError: the last words")
    told = json.loads(home.runctl("monitor", "--log", "train.log", "--json").output)
    assert (told["log"][-1], len(told["alerts"])) == ("RuntimeError: the last words", 1)


def test_of_a_long_log_only_the_end_is_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitored, "_LOG_BYTES", 40)
    home.run("digits", log="an old error\n" * 100 + "the last line\n")
    told = json.loads(home.runctl("monitor", "digits", "--json").output)
    assert told["log"] == ["an old error", "the last line"], "the first of them was torn"


def test_of_many_segments_only_the_last_are_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitored, "_SEGMENTS", 3)
    rundir = home.run("bucketed", state=RunState.RUNNING, root="memory://monitored")
    for step in range(1, 8):
        line = {"at": time.time(), "attempt": 1, "step": step, "loss": step / 10}
        rundir.store.write(f"metrics.jsonl/a1-n0-{step:06d}", json.dumps(line).encode() + b"\n")
    source = MonitoredRun(rundir)
    source.look()
    assert list(source.seen.series["loss"]) == [0.6, 0.7], "the first of three may be torn, and is left out"
    rundir.store.write("metrics.jsonl/a1-n0-000008", b'{"attempt": 1, "step": 8, "loss": 0.8}\n')
    source.look()
    assert list(source.seen.series["loss"]) == [0.6, 0.7, 0.8]


def test_a_run_or_a_log(home: Home) -> None:
    for words in ([], ["digits", "--log", "x.log"]):
        assert "either a run" in home.runctl("monitor", *words, expect=2).stderr
    assert "no such file" in home.runctl("monitor", "--log", "x.log", expect=2).stderr


def test_any_log_is_looked_through(home: Home) -> None:
    Path("train.log").write_text('epoch: 1, loss: 0.5\nepoch: 2, loss: 0.25\n{"step": 3, "loss": NaN}\nfatal error\n')
    told = json.loads(home.runctl("monitor", "--log", "train.log", "--json").output)
    assert (told["log_file"], told["step"], told["metrics"]) == ("train.log", 3, {"epoch": 2, "loss": "nan"})
    assert [one["what"] for one in told["alerts"]] == ["loss is nan since step 3", "fatal error"]
    assert "train.log  step 3" in home.runctl("monitor", "--log", "train.log").output


def test_a_log_is_followed_before_it_is_there_and_when_it_begins_anew(tmp_path: Path) -> None:
    log = tmp_path / "training.log"
    words = [str(BIN / "runctl"), "monitor", "--log", str(log), "--follow"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        time.sleep(1.0)
        log.write_text("step=1 loss=0.50\nstep=2 loss=0.25\nsomething long, so that what comes then is shorter\n")
        until(process.stdout, "step 2 · loss=0.25")
        log.write_text("Traceback (most recent call last):\n")
        until(process.stdout, "ALERT Traceback")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def until(lines, wanted: str) -> None:
    for line in lines:
        if wanted in line:
            return
    raise AssertionError(f"{wanted} never came")


def test_a_detached_run_is_watched_live_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import time\nfor step in range(1, 60):\n    print(f'step={step} loss={1 / step:.3f}', flush=True)\n"
        "    time.sleep(0.1)\n"
    )
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
    launch = [str(BIN / "runctl-launch"), "script=train.py", "run.id=live", "detach=true"]
    subprocess.run(launch, cwd=tmp_path, env=env, check=True, capture_output=True, timeout=60)
    shown, child = b"", 0
    child, fd = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execve(BIN / "runctl", ["runctl", "monitor", "latest", "-f"], env)
    try:
        while piece := os.read(fd, 1 << 16):
            shown += piece
    except OSError:
        pass  # it has closed its end
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "running" in text and "succeeded" in text and "step 59" in text
    assert re.search(r"CPU +\d+% ", text), "the agent told how busy this machine is"
    assert "\x1b[?25h" in shown.decode(), "the cursor is back"


def test_sparklines() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, "nan", 2.0], 8) == "▁ █"
    assert sparkline([3.0, 3.0], 8) == "▁▁"
    assert len(sparkline(range(1000), 50)) == 50
    assert sparkline(["nan"], 8) == sparkline([], 8) == ""
