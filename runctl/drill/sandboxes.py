"""An instance as processes in a folder of its own: booted, shut down, ended with all its children."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from runctl import processes

#: Every process of an instance carries its id, whatever else it drops.
MARK = "RUNCTL_DRILL_INSTANCE"
_SHUTDOWN = """#!/bin/sh
exec {python} -I -S - "$@" <<'EOF'
import sys, urllib.parse, urllib.request
words = " ".join(sys.argv[1:])
urllib.request.urlopen("{control}/shutdown?" + urllib.parse.urlencode(dict(instance="{id}", words=words)), data=b"")
EOF
"""


def host_environment(name: str, folder: Path) -> dict[str, str]:
    """Make the folders of a host of the drill, and give the environment of all that runs in it.

    Args:
        name: of the host.
        folder: in which it lives.
    """
    for part in ("bin", "home", "tmp", "var/lib/runctl"):
        (folder / part).mkdir(parents=True)
    return {
        MARK: name,
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "PATH": f"{folder / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "LANG": "C.UTF-8",
        "RUNCTL_HOST_ROOT": str(folder / "var/lib/runctl"),
        "RUNCTL_AGENT_PYTHON": sys.executable,
        "RUNCTL_IMAGE_PYTHON": sys.executable,  # what an image for deep learning has at /opt/pytorch
        **{one: os.environ[one] for one in ("OMP_NUM_THREADS", "PYTHONPATH") if one in os.environ},
    }


class Sandbox:
    """One instance's folder and processes.

    Args:
        instance_id: whose.
        root: where folders of instances are made.
        url: of the cloud.
        region: of the instance.
        on_shutdown: called when the instance powers itself off.
    """

    def __init__(self, instance_id: str, root: Path, url: str, region: str, on_shutdown: Callable[[str], None]) -> None:
        self.id = instance_id
        self.folder = root / instance_id
        self.alive = True
        self.interrupted_at: float | None = None
        self.rebalance_at: float | None = None
        self._on_shutdown = on_shutdown
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        own = host_environment(instance_id, self.folder)
        command = self.folder / "bin" / "shutdown"
        command.write_text(_SHUTDOWN.format(python=sys.executable, control=f"{url}/-", id=instance_id))
        command.chmod(0o755)
        self.console = self.folder / "console.log"
        self.console.touch()
        self.environment = {
            **own,
            "AWS_ENDPOINT_URL": url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{url}/imds/{instance_id}/",
            "AWS_DEFAULT_REGION": region,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "RUNCTL_CONSOLE": str(self.console),
            # A rehearsal need not fetch once more what lies on this machine.
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv"),
        }

    def boot(self, user_data: bytes) -> None:
        """Run the user data, as cloud-init does, without anybody waiting for it."""
        if user_data.startswith(b"#!"):
            script = self.folder / "user-data"
            script.write_bytes(user_data)
            # Not as a program itself: while another process is being started, it may seem to be written to still.
            words = user_data.splitlines()[0][2:].decode().split()
            with self.console.open("ab") as console:
                self.start([*words, str(script)], stdout=console.fileno(), stderr=subprocess.STDOUT)

    def start(self, argv: list[str], *, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        """Start a process of the instance, in a session of its own.

        Raises:
            OSError: if the instance has ended.
        """
        with self._lock:
            if not self.alive:
                raise OSError(f"{self.id} has ended")
            return subprocess.Popen(
                argv,
                cwd=self.folder / "home",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def shutdown(self, words: str) -> None:
        """What `shutdown WORDS` does: `-P now`, `-P +5`, `-c`. A later one replaces an earlier one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if "-c" in words.split():
            return
        when = next((word for word in words.split() if word == "now" or word.startswith("+")), "+1")
        delay_s = 0.0 if when == "now" else float(when.lstrip("+")) * 60
        # Powering off takes a moment; whoever asked for it gets its answer first.
        self._timer = threading.Timer(max(0.2, delay_s), self._on_shutdown, [self.id])
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """End every process of the instance at once, as a host that is gone does."""
        with self._lock:
            self.alive = False
        if self._timer is not None:
            self._timer.cancel()
        processes.end_by_environment(MARK, self.id)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a command's process group, as SSM does."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
