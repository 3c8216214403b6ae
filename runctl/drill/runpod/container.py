"""A pod's container as a process: starts the entrypoint, again whenever it ends, and ends all that came of it.

    python -m runctl.drill.runpod.container FOLDER

It reads its orders from standard input: `term` is RunPod's notice, and the end of the input the end of the container,
so that a server that was killed leaves nothing behind. Every descendant that lost its parent falls to this process,
as in a container to its first one.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from runctl import processes

#: From SIGTERM to SIGKILL (docs.runpod.io, spot pods).
NOTICE_S = 5.0
#: Docker's pauses before a restart: doubled each time, from the first again after a life of so many seconds
#: (docs.docker.com, `docker run --restart`).
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 60.0
_SOUND_S = 10.0
_LOOK_S = 0.03


class Container:
    """One container.

    Args:
        folder: the pod's, with `container.json`: the entrypoint's words, and where it starts.
    """

    def __init__(self, folder: Path) -> None:
        told = json.loads((folder / "container.json").read_text())
        self._argv: list[str] = told["argv"]
        self._cwd: str = told["cwd"]
        self._folder = folder
        self._orders: queue.Queue[str | None] = queue.Queue()
        self._starts = 0  # of its entrypoint, also before the container itself was stopped and started
        with contextlib.suppress(OSError, ValueError):
            self._starts = int(json.loads((folder / "state.json").read_text())["starts"])

    def run(self) -> None:
        """Run it until it is told to end."""
        processes.adopt_orphans()
        threading.Thread(target=self._listen, daemon=True).start()
        pause_s = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            if self._live_once():
                return
            pause_s = _FIRST_PAUSE_S if time.monotonic() - began >= _SOUND_S else pause_s
            with contextlib.suppress(queue.Empty):
                self._orders.get(timeout=pause_s)
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _live_once(self) -> bool:
        """One life of the entrypoint, to the end of everything in the container; whether that was ordered."""
        self._starts += 1
        with (self._folder / "container.log").open("ab") as log:
            try:
                first = subprocess.Popen(
                    self._argv, cwd=self._cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            except OSError as error:
                log.write(f"{self._argv[0]}: {error}\n".encode())
                return False
        self._note(first.pid)
        deadline: float | None = None
        ordered = False
        while first.poll() is None and (deadline is None or time.monotonic() < deadline):
            processes.reap_orphans(first.pid)
            with contextlib.suppress(queue.Empty):
                order = self._orders.get(timeout=_LOOK_S)
                ordered, deadline = True, time.monotonic() + (NOTICE_S if order == "term" else 0.0)
                # The kernel drops what the first process of a container does not handle.
                if order == "term" and _handles(first.pid, signal.SIGTERM):
                    first.send_signal(signal.SIGTERM)
        processes.end_descendants()
        first.wait()
        return ordered

    def _note(self, pid: int) -> None:
        """Tell which process is the container's first, and how often there was one."""
        aside = self._folder / ".tmp-state.json"
        aside.write_text(json.dumps({"pid": pid, "starts": self._starts}))
        aside.replace(self._folder / "state.json")

    def _listen(self) -> None:
        for line in sys.stdin:
            self._orders.put(line.strip())
        self._orders.put(None)


def _handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; where that cannot be seen, it counts as handled."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "f" * 16)
    return bool(int(caught, 16) >> (number - 1) & 1)


def main() -> None:
    """Run the container of a folder."""
    Container(Path(sys.argv[1])).run()


if __name__ == "__main__":
    main()
