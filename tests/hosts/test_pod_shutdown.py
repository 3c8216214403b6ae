"""`shutdown` on a pod: RunPod is asked to end it, with the pod's own key, until it is granted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import wait_until

from runctl.hosts import runpod
from runctl.platforms.runpod.boot import with_boot as boot_of

FILE = Path(runpod.__file__)
BOOT = FILE.with_name("runpod_boot.py")
FETCH = FILE.with_name("runpod_fetch.py")


class Api:
    """Answers every request, with errors first.

    Attributes:
        asked: what came: path, key, body.
        errors: statuses of the next answers.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.errors: list[int] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.asked.append((self.path, self.headers["Authorization"], body))
                if api.errors:
                    self.send_error(api.errors.pop(0))
                    return
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"data": {"podTerminate": null}}')

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


class Pod:
    """An attempt's folder on a pod, and its environment."""

    def __init__(self, folder: Path, api: Api) -> None:
        self.home = folder / "run" / "a1"
        (self.home / "bin").mkdir(parents=True)
        self.program = self.home / "bin" / "runpod.py"
        self.program.write_bytes(FILE.read_bytes())
        self.env = {
            "PATH": os.environ["PATH"],
            "RUNPOD_API_BASE_URL": f"http://127.0.0.1:{api.server.server_port}",
            "RUNPOD_API_KEY": "of-this-pod",
            "RUNPOD_POD_ID": "p0d",
            "RUNCTL_HOST_ROOT": str(folder),
        }

    def shutdown(self, *words: str) -> None:
        subprocess.run(
            [sys.executable, str(self.program), "shutdown", *words], env=self.env, check=True, timeout=20,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """Timers that are armed."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if str(self.program) in (process.info["cmdline"] or []):
                found.append(process)
        return found


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def pod(tmp_path: Path, api: Api) -> Iterator[Pod]:
    made = Pod(tmp_path, api)
    yield made
    for process in made.processes():
        process.kill()


def test_now_asks_for_the_pods_end_with_its_own_key(pod: Pod, api: Api) -> None:
    pod.shutdown("-P", "now")
    wait_until(lambda: bool(api.asked), 10, "RunPod is asked")
    path, key, body = api.asked[0]
    assert (path, key) == ("/graphql", "Bearer of-this-pod")
    assert "podTerminate" in body["query"]
    assert body["variables"] == {"input": {"podId": "p0d"}}


def test_it_asks_until_it_is_granted(pod: Pod, api: Api) -> None:
    api.errors = [502, 401]
    pod.shutdown("-P", "now")
    wait_until(lambda: len(api.asked) == 3, 20, "RunPod is asked three times")


def test_a_later_one_replaces_an_earlier_one_and_c_takes_it_back(pod: Pod, api: Api) -> None:
    pod.shutdown("-P", "+5")
    pod.shutdown("-P", "+7")
    [timer] = pod.processes()
    assert "+7" in timer.cmdline()
    assert timer.ppid() != os.getpid()
    pod.shutdown("-c")
    wait_until(lambda: not pod.processes(), 5, "no timer is left")
    assert not api.asked


@pytest.mark.parametrize("told", [{"host.json": {"collect_s": 60}}, {"ended.json": {"bring_up_error": "no"}}])
def test_what_lies_on_the_pod_alone_is_waited_for(pod: Pod, api: Api, told: dict[str, Any]) -> None:
    for name, data in told.items():
        (pod.home / name).write_text(json.dumps(data))
    pod.shutdown("-P", "now")
    time.sleep(1.5)
    assert not api.asked
    (pod.home / "collected").touch()
    wait_until(lambda: bool(api.asked), 10, "RunPod is asked")


@contextlib.contextmanager
def booted(pod: Pod, *, lives_s: float, restarted_s: float, **more: str) -> Iterator[None]:
    """What ends a pod beside its container's start, as long as it is looked at."""
    told = {"RUNCTL_LIVES_S": str(lives_s), "RUNCTL_RESTARTED_S": str(restarted_s), **more}
    boot = subprocess.Popen([sys.executable, "-"], stdin=BOOT.open("rb"), env={**pod.env, **told})
    try:
        yield
    finally:
        boot.kill()
        boot.wait()


def test_a_container_ends_its_pod_at_its_deadline_counted_from_its_first_start(pod: Pod, api: Api) -> None:
    root = Path(pod.env["RUNCTL_HOST_ROOT"])
    for lives_s, first in ((1.0, None), (50.0, time.time() - 49)):
        (root / "booted").unlink(missing_ok=True)
        if first is not None:
            (root / "booted").write_text(str(first))
        before = len(api.asked)
        with booted(pod, lives_s=lives_s, restarted_s=60):
            wait_until(lambda before=before: len(api.asked) > before, 10, "RunPod is asked")
            assert api.asked[-1][1] == "Bearer of-this-pod"


@pytest.mark.parametrize("left", ["end", "run/a1/started"])
def test_a_container_that_cannot_begin_or_begins_again_ends_its_pod_soon(pod: Pod, api: Api, left: str) -> None:
    Path(pod.env["RUNCTL_HOST_ROOT"], left).touch()
    with booted(pod, lives_s=600, restarted_s=1.5):
        wait_until(lambda: bool(api.asked), 10, "RunPod is asked")


def test_a_pod_ends_at_its_deadline_where_nothing_can_be_written(pod: Pod, api: Api, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pod.env["RUNCTL_HOST_ROOT"] = str(tmp_path / "file" / "runctl")
    with booted(pod, lives_s=0.5, restarted_s=60):
        wait_until(lambda: bool(api.asked), 10, "RunPod is asked")


def test_a_pod_to_which_nobody_comes_ends_soon(pod: Pod, api: Api) -> None:
    root = Path(pod.env["RUNCTL_HOST_ROOT"])
    (root / "booted").write_text(str(time.time() - 50))
    with booted(pod, lives_s=600, restarted_s=60):  # made by hand: whoever comes comes when they like
        time.sleep(1.5)
    assert not api.asked
    with booted(pod, lives_s=600, restarted_s=60, RUNCTL_COMES_S="49"):
        wait_until(lambda: bool(api.asked), 10, "RunPod is asked")


def test_a_pod_whose_keeper_was_started_is_ended_by_nobody_else_before_its_deadline(pod: Pod, api: Api) -> None:
    Path(pod.env["RUNCTL_HOST_ROOT"], "booted").write_text(str(time.time() - 50))
    (pod.home / "started").touch()
    began = time.time()
    with booted(pod, lives_s=600, restarted_s=1.5, RUNCTL_COMES_S="49"):
        wait_until(lambda: bool(api.asked), 10, "RunPod is asked")
        assert time.time() - began >= 1.5


def test_what_a_pod_runs_has_another_root_where_ours_cannot_be_written(tmp_path: Path) -> None:
    """Below which whoever comes over SSH begins nothing: so nobody is waited for there."""
    (tmp_path / "file").touch()
    start = 'echo "$RUNCTL_HOST_ROOT $RUNCTL_COMES_S"'
    asked = boot_of({"arguments": {"env": []}}, 60.0, start, bring_up_s=900.0)["arguments"]
    env = {one["key"]: one["value"] for one in asked["env"]}
    for there, told in ((tmp_path / "good", f"{tmp_path / 'good'} 1200"), (tmp_path / "file" / "no", "/tmp/runctl ")):
        said = subprocess.run(
            ["sh", "-c", asked["dockerArgs"]], capture_output=True, text=True, timeout=20, check=True,
            env={**env, "PATH": os.environ["PATH"], "RUNCTL_HOST_ROOT": str(there), "RUNCTL_BOOT": ""},
        ).stdout  # fmt: skip
        assert said == f"{told}\n"


def test_it_needs_nothing_but_an_old_python() -> None:
    import ast

    for path in (FILE, BOOT, FETCH):
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert all(name.split(".")[0] in (*sys.stdlib_module_names, "__future__") for name in names), names
