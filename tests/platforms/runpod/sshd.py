"""A real OpenSSH server on loopback, for what a launcher says to a pod; and a line to it that can be cut."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

from runctl.drill.runpod import sshd


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Sshd:
    """One server, with a host key of its own, that lets one key in.

    Args:
        folder: for its files.
        authorized: the public key that it lets in.
        port: to listen at; a free one if None.
    """

    def __init__(self, folder: Path, authorized: str, port: int | None = None) -> None:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
        self.folder = folder
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.new_host_key()
        (folder / "authorized_keys").write_text(authorized + "\n")
        (folder / "authorized_keys").chmod(0o600)
        self._server = sshd.ready()
        self.user = self._server.user
        for name, text in (
            ("passwd", f"root:x:{os.geteuid()}:{os.getegid()}:root:{folder}:/bin/sh\n"),
            ("group", f"root:x:{os.getegid()}:\n"),
        ):
            (folder / name).write_text(
                text + f"sshd:x:65533:{'65533::/run/sshd:/usr/sbin/nologin' * (name == 'passwd')}\n"
            )
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"PermitRootLogin prohibit-password\nSubsystem sftp {self._server.sftp_server}\nMaxStartups 100\n"
        )

    def new_host_key(self) -> None:
        """Become another host."""
        for path in self.folder.glob("host_key*"):
            path.unlink()
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key")]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)

    def open(self) -> None:
        words = ["-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "log")]
        self._process = subprocess.Popen(
            [str(self._server.binary), *words],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self._server.variables(self.folder)},
        )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)

    def shut(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


class Line:
    """A way to a port that breaks off: once so many bytes have come or gone."""

    def __init__(self, port: int, breaks_after: int) -> None:
        self._to = port
        self.left = breaks_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while self.left > 0 and (data := one.recv(1 << 15)):
                other.sendall(data)
                self.left -= len(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
                end.close()

    def close(self) -> None:
        self._listener.close()
