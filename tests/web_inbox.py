"""A web server on loopback that takes notifications."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Inbox:
    """A web server that takes notifications; one that `hangs` answers nothing."""

    def __init__(self) -> None:
        inbox = self
        self.taken: list[dict[str, Any]] = []
        self.status = 200
        self.hangs = False
        self.released = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if inbox.hangs:
                    inbox.released.wait(60)
                    return
                if inbox.status == 200:
                    inbox.taken.append(data)
                self.send_response(inbox.status)
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"json://127.0.0.1:{self._server.server_address[1]}/a-secret-path"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def shut(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
