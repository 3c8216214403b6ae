"""A rented host without the renting: its files behind links, a `shutdown` of ours, keepers as real processes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from runctl import processes
from runctl.hosts import keeper

KEEPER = Path(keeper.__file__)
TIMEOUT_S = 60


class Files:
    """Serves bytes by name, with ranges; takes what is put.

    Attributes:
        data: the files.
        put: what was put, by name.
        asked: name, and where the range began, of each request.
        troubles: for each coming request a status to answer with, or the number of bytes, negative, after which the
            connection breaks off.
        slow_s: how long each answer waits.
    """

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.put: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []
        self.troubles: list[int] = []
        self.slow_s = 0.0
        files = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.split("?")[0].strip("/")
                begin = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
                files.asked.append((name, begin))
                time.sleep(files.slow_s)
                trouble = files.troubles.pop(0) if files.troubles else 0
                data = files.data.get(name)
                if trouble > 0 or data is None or (begin and begin >= len(data)):
                    self.send_error(trouble if trouble > 0 else 404 if data is None else 416)
                    return
                self.send_response(206 if begin else 200)
                self.send_header("Content-Length", str(len(data) - begin))
                self.end_headers()
                self.wfile.write(data[begin : begin - trouble] if trouble else data[begin:])
                self.close_connection = True

            def do_PUT(self) -> None:
                if files.troubles:
                    self.send_error(files.troubles.pop(0))
                    return
                data = self.rfile.read(int(self.headers["Content-Length"]))
                files.put[self.path.split("?")[0].strip("/")] = data
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def link(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}?X-Amz-Signature=s3cret"

    def add(self, name: str, data: bytes, unpack_to: str | None = None) -> dict[str, Any]:
        """Serve a file; what host.json says of it."""
        self.data[name] = data
        digest = hashlib.sha256(data).hexdigest()
        return {"url": self.link(name), "sha256": digest, "size_bytes": len(data), "name": name, "unpack_to": unpack_to}

    def shut(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def bundle(**files: str) -> bytes:
    """A tar.gz of text files; `__` in a name stands for a slash, and every file gets `.py`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "/") + ".py")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


class Host:
    """One host: a folder, a PATH with a `shutdown` of ours first, and its keepers.

    Args:
        folder: all of it lies there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "root" / "run" / "a1"
        self.bin = folder / "bin"
        for path in (self.home, self.bin):
            path.mkdir(parents=True)
        self.files = Files()
        self._ended = folder / "shutdown"
        self.program("shutdown", f'#!/bin/sh\necho "$@" >> {self._ended}\n')
        self.env = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(folder),
            "RENTED_HOST": str(folder),
            "RUNCTL_CONSOLE": str(folder / "console"),
        }
        self.keepers: list[subprocess.Popen[bytes]] = []

    def program(self, name: str, text: str) -> str:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def agent(self, script: str) -> str:
        """An interpreter that is none: whatever it is started for, it runs this script, in the agent's place."""
        text = f"#!{sys.executable}\nimport json, os, signal, sys, time\nhome = {str(self.home)!r}\n"
        return self.program("agent-python", text + textwrap.dedent(script))

    def describe(self, **fields: Any) -> None:
        """Write host.json."""
        host = {
            "run_id": "run", "attempt": 1, "files": [], "setup": [], "agent_python": None, "order": {"run_dir": "x"},
            "env": {}, "log_url": self.files.link("bring-up.log"), "bring_up_s": 60, "keep_on_failure_s": 0,
            "deadline": time.time() + 3600, "unit": "runctl-run-a1",
        }  # fmt: skip
        (self.home / "host.json").write_text(json.dumps({**host, **fields}))

    def keep(self, verb: str = "run") -> subprocess.Popen[bytes]:
        keeper = subprocess.Popen(
            [sys.executable, str(KEEPER), verb, str(self.home)],
            env=self.env, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.keepers.append(keeper)
        return keeper

    def run(self) -> int:
        return self.keep().wait(TIMEOUT_S)

    @property
    def shutdowns(self) -> list[str]:
        """The arguments of each `shutdown` but the one that armed the dead-man's switch, which comes first."""
        words = self._ended.read_text().splitlines() if self._ended.exists() else []
        return words[1:] if words and words[0].startswith("-P +") else words

    @property
    def log(self) -> str:
        path = self.home / keeper.LOG
        return path.read_text() if path.exists() else ""

    def ended(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.home / "ended.json").read_text())
        return data

    def clean_up(self) -> None:
        for one in self.keepers:
            if one.poll() is None:
                one.kill()
                one.wait(10)
        processes.end_by_environment("RENTED_HOST", str(self.folder))
        self.files.shut()
