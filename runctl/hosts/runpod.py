"""What `shutdown` is on a pod: the pod is ended through RunPod's API, with the key that is good for it alone.

    python3 runpod.py shutdown -P +N     in N minutes; a later one replaces an earlier one, of whatever attempt
    python3 runpod.py shutdown -P now    at once, or once its run has been collected
    python3 runpod.py shutdown -c        not at all

A container cannot shut its host down, and starts again when its first process ends. Sent along with the keeper, which
finds it on its PATH under the name `shutdown`: one file, the standard library, Python 3.8 or newer. The last resort is
none of its own: see `runpod_boot`.

Sources: docs.runpod.io, "Manage Pods" (podTerminate), "Environment variables" (RUNPOD_POD_ID, RUNPOD_API_KEY).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

#: Until the container is gone: nothing else ends what costs money here.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_TIMEOUT_S = 30.0
_LOOK_S = 0.5
#: How long a host that could not be brought up waits for somebody to fetch its log.
_LOG_S = 60.0
#: Variables of ours and RunPod's, which a session over SSH may not have: the container's first process has them.
_WANTED = ("RUNPOD_", "RUNCTL_")


def shutdown(words: list[str]) -> int:
    """Do what `shutdown WORDS` asks."""
    root = _home().parents[1]  # one timer for the whole pod, whichever of its attempts armed it
    with (root / "shutdown.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _disarm(root)
        when = next((word for word in words if word == "now" or word.startswith("+")), "+1")
        if "-c" in words:
            return 0
        delay_s = 0.0 if when == "now" else 60 * float(when)
        nowhere = subprocess.DEVNULL
        timer = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "wait", str(time.time() + delay_s), when],
            stdin=nowhere, stdout=nowhere, stderr=nowhere, cwd="/", start_new_session=True,
        )  # fmt: skip
        (root / "shutdown.pid").write_text(str(timer.pid))
    return 0


def wait(at: float, when: str) -> int:
    """Wait until then, and end the pod."""
    home = _home()
    while time.time() < at:
        time.sleep(min(_LOOK_S, max(0.0, at - time.time())))
    # A deadline waits for nobody; one whose attempt has ended waits for whoever brings what only lies here.
    if when == "now" or (home / "ended.json").exists():
        until = time.time() + _uncollected_s(home)
        while time.time() < until and not (home / "collected").exists():
            time.sleep(_LOOK_S)
    end_pod()
    return 0


def end_pod() -> None:
    """Ask for the pod's end, again and again: when it is granted, this process ends with it."""
    pause_s = _FIRST_PAUSE_S
    while True:
        for ask in (_by_api, _by_runpodctl):
            with contextlib.suppress(Exception):
                ask(environment())
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _by_api(variables: dict[str, str]) -> None:
    query = "mutation End($input: PodTerminateInput!) { podTerminate(input: $input) }"
    asked = {"query": query, "variables": {"input": {"podId": variables["RUNPOD_POD_ID"]}}}
    request = urllib.request.Request(
        variables.get("RUNPOD_API_BASE_URL", "https://api.runpod.io").rstrip("/") + "/graphql",
        json.dumps(asked).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {variables['RUNPOD_API_KEY']}",
            "User-Agent": "runctl",
        },
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        told: Any = json.load(answer)
    if told.get("errors"):
        raise OSError(str(told["errors"]))
    time.sleep(_LONGEST_PAUSE_S)  # it is granted: the end comes from outside


def _by_runpodctl(variables: dict[str, str]) -> None:
    words = ["runpodctl", "remove", "pod", variables["RUNPOD_POD_ID"]]
    subprocess.run(words, env={**os.environ, **variables}, timeout=_TIMEOUT_S, check=False, capture_output=True)


def environment() -> dict[str, str]:
    """RunPod's variables and ours: of this process, else of the container's first."""
    found = {}
    with contextlib.suppress(OSError):
        for entry in Path("/proc/1/environ").read_bytes().split(b"\0"):
            name, _, value = entry.decode(errors="replace").partition("=")
            found[name] = value
    return {name: value for name, value in {**found, **os.environ}.items() if name.startswith(_WANTED)}


def _uncollected_s(home: Path) -> float:
    """How long the pod waits for a launcher that collects what only lies here."""
    host: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        host = json.loads((home / "host.json").read_text())
    waits_s = float(host.get("collect_s", 0.0))
    with contextlib.suppress(OSError, ValueError):
        failed = json.loads((home / "ended.json").read_text()).get("bring_up_error")
        if failed and not host.get("log_url"):  # or else the log has been sent
            waits_s = max(waits_s, _LOG_S)
    return waits_s


def _disarm(root: Path) -> None:
    """End the timer that was armed before, if it is one."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((root / "shutdown.pid").read_text())
        if str(Path(__file__).name).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def _home() -> Path:
    """The attempt's folder, above the one with our programs."""
    return Path(__file__).resolve().parents[1]


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    sys.exit(wait(float(rest[0]), rest[1]) if what == "wait" else shutdown(rest))
