"""What a user's own tests get from runctl: the fixture `runctl_cloud` and the marker `torchrun`.

pytest loads this wherever runctl is installed (entry point pytest11), so it imports nothing of ours before it is used.
A test with the marker runs once on each rank of a real torchrun; it passes if it passes on all of them:

    @pytest.mark.torchrun(nproc=2)
    def test_the_ranks_agree(): ...
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: Where the ranks of a test leave how it went; set in their environment alone.
_OUTCOMES = "RUNCTL_TEST_OUTCOMES"
_LAUNCH = "from runctl.launch import main; main()"
_TIMEOUT_S = 300.0
#: torchrun gives its ranks 30 s.
_ENDS_WITHIN_S = 40.0
_LAST_LINES = 40


@dataclass(frozen=True)
class Ended:
    """A launch that has ended.

    Attributes:
        exit_code: the launch's, which is the training's own.
        out: what the training printed.
        err: what runctl said.
        report: of a drill: `attempts`, `steps_lost`, `stall_s`, `uploads`, `left_running`; empty of a local launch.
    """

    exit_code: int
    out: str
    err: str
    report: dict[str, Any]


class RunctlCloud:
    """Launches of a user's own training, in the drill or on this machine.

    Args:
        project: the folder to launch in.
        scratch: a folder for what is left of them.
    """

    def __init__(self, project: Path, scratch: Path) -> None:
        self.project = project
        self._scratch = scratch
        self._launches = 0

    def drill(self, scenario: str, *words: str, timeout_s: float = _TIMEOUT_S) -> Ended:
        """Launch on a cloud on loopback, and have it go through a scenario.

        Args:
            scenario: such as `spot`.
            words: of the launch, such as `script=train.py`.
        """
        report = self._scratch / f"report-{self._launches}.json"
        ended = self._launch(["+platform=aws", f"drill={scenario}", f"drill.report={report}", *words], timeout_s)
        told = json.loads(report.read_text()) if report.exists() else {}
        return Ended(ended.exit_code, ended.out, ended.err, told)

    def local(self, *words: str, timeout_s: float = _TIMEOUT_S) -> Ended:
        """Launch on this machine, to compare with."""
        return self._launch([f"run.root={self._scratch / 'runs'}", *words], timeout_s)

    def _launch(self, words: Sequence[str], timeout_s: float) -> Ended:
        self._launches += 1
        said = [self._scratch / f"launch-{self._launches}.{name}" for name in ("out", "err")]
        with said[0].open("wb") as out, said[1].open("wb") as err:
            launch = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, *words], cwd=self.project, stdin=subprocess.DEVNULL, stdout=out,
                stderr=err, env=_own_environment(), start_new_session=True,
            )  # fmt: skip
            in_time = _wait(launch, timeout_s)
        texts = [path.read_text(errors="replace") for path in said]
        if not in_time:
            pytest.fail(f"the launch did not end within {timeout_s:.0f} s; it said last:\n{_last_lines(texts[1])}")
        return Ended(launch.returncode, texts[0], texts[1], {})


@pytest.fixture
def runctl_cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunctlCloud:
    """Launches of this project's trainings, in the drill or on this machine."""
    return RunctlCloud(request.config.rootpath, tmp_path_factory.mktemp("runctl"))


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "torchrun(nproc=2, timeout_s=300): run this test on each rank of a torchrun with nproc ranks"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Have a marked test run on ranks; its fixtures are made there, and not here."""
    marker = item.get_closest_marker("torchrun")
    if marker is None or _OUTCOMES in os.environ:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    item.ihook.pytest_runtest_logreport(report=_on_ranks(item, **_asked(*marker.args, **marker.kwargs)))
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """On a rank: leave how it went, the worst of the three phases."""
    folder = os.environ.get(_OUTCOMES)
    if folder is None or not (report.failed or report.skipped or report.when == "call"):
        return
    path = Path(folder) / f"{os.environ['RANK']}.json"
    if path.exists() and not report.failed:
        return
    skipped = report.longrepr[2] if isinstance(report.longrepr, tuple) else None
    told = {
        "outcome": report.outcome,
        "text": skipped or report.longreprtext,
        "xfail": getattr(report, "wasxfail", None),
    }
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(told))
    aside.replace(path)


def _asked(nproc: int = 2, timeout_s: float = _TIMEOUT_S) -> dict[str, Any]:
    """The marker's arguments."""
    return {"nproc": nproc, "timeout_s": timeout_s}


def _on_ranks(item: pytest.Item, nproc: int, timeout_s: float) -> pytest.TestReport:
    """Run a test on ranks, and merge what they left."""
    began, began_at = time.monotonic(), time.time()
    with tempfile.TemporaryDirectory(prefix="runctl-test-", ignore_cleanup_errors=True) as folder:
        output = Path(folder) / "output"
        with output.open("wb") as file:
            torchrun = subprocess.Popen(
                _command(item, nproc, Path(folder)), cwd=item.config.invocation_params.dir, stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env={"OMP_NUM_THREADS": "1", **_own_environment(), _OUTCOMES: folder},
            )  # fmt: skip
            in_time = _wait(torchrun, timeout_s)
        said = output.read_text(errors="replace")
        ranks = [_told(Path(folder) / f"{rank}.json") for rank in range(nproc)]
    outcome, text, xfail = _merged(ranks, None if in_time else timeout_s)
    location = (str(item.path), item.location[1] or 0, text)
    report = pytest.TestReport(
        nodeid=item.nodeid, location=item.location, keywords={name: 1 for name in item.keywords}, outcome=outcome,
        longrepr={"passed": None, "skipped": location}.get(outcome, text), when="call",
        sections=[(f"Output of {nproc} ranks", _last_lines(said))], duration=time.monotonic() - began,
        start=began_at, stop=time.time(),
    )  # fmt: skip
    if xfail is not None:
        report.wasxfail = xfail
    return report


def _merged(ranks: Sequence[dict[str, Any] | None], late_s: float | None) -> tuple[Any, str, str | None]:
    """One outcome of many: (outcome, text, reason of an expected failure)."""
    failed = [
        f"rank {rank}: {'it left no outcome: it died or hung' if told is None else told['text']}"
        for rank, told in enumerate(ranks)
        if told is None or told["outcome"] == "failed"
    ]
    if late_s is not None:
        failed.insert(0, f"the ranks did not end within {late_s:.0f} s")
    if failed:
        return "failed", "\n\n".join(failed), None
    told = [one for one in ranks if one is not None]
    odd = next((one for one in told if one["outcome"] != "passed" or one["xfail"] is not None), None)
    if odd is None:
        return "passed", "", None
    if any((one["outcome"], one["xfail"]) != (odd["outcome"], odd["xfail"]) for one in told):
        outcomes = ", ".join(f"rank {rank} {one['outcome']}" for rank, one in enumerate(told))
        return "failed", f"the ranks do not agree: {outcomes}; {odd['text']}", None
    return odd["outcome"], odd["text"], odd["xfail"]


def _command(item: pytest.Item, nproc: int, folder: Path) -> list[str]:
    """torchrun with a pytest on each rank for this one test, whatever else the user's addopts say."""
    config = item.config
    options = ["-o", f"cache_dir={folder / 'cache'}", "-m", "", "--rootdir", str(config.rootpath)]
    if config.inipath is not None:
        options += ["-c", str(config.inipath)]
    if config.pluginmanager.hasplugin("xdist"):
        options += ["-n0"]
    test = f"{item.path}::{item.nodeid.partition('::')[2]}"
    torchrun = [
        "torch.distributed.run",
        f"--nproc-per-node={nproc}",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
    ]
    return [sys.executable, "-m", *torchrun, "-m", "pytest", *options, test]


def _told(path: Path) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return told


def _own_environment() -> dict[str, str]:
    """This process's environment without what this pytest, or a torchrun around it, says of itself."""
    own = ("PYTEST_CURRENT_TEST", "PYTEST_XDIST_", "TORCHELASTIC_", "RUNCTL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for an end, or bring it about, also if pytest is interrupted meanwhile; whether it came by itself."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            process.terminate()  # a launcher and a torchrun end their own
            try:
                process.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return True


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-_LAST_LINES:])
