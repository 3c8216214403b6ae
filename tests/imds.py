"""A metadata service of an instance on loopback, version 2: nothing is told without a token."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN_HEADER = "X-aws-ec2-metadata-token"


class Imds:
    """Serves `paths`, which a test may change at any time.

    Attributes:
        paths: text by path below `latest/meta-data/`.
        tokens: those that are good.
        issued: how many tokens were given out.
        silent_s: how long each answer takes.
    """

    def __init__(self) -> None:
        self.paths: dict[str, str] = {
            "instance-id": "i-0123456789abcdef0",
            "instance-type": "g5.xlarge",
            "placement/availability-zone": "us-east-1b",
            "instance-life-cycle": "spot",
        }
        self.tokens: set[str] = set()
        self.issued = 0
        self.silent_s = 0.0
        imds = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                time.sleep(imds.silent_s)
                asked = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                if not asked:
                    return self._answer(400, "")
                imds.issued += 1
                imds.tokens.add(f"token-{imds.issued}")
                return self._answer(200, f"token-{imds.issued}")

            def do_GET(self) -> None:
                time.sleep(imds.silent_s)
                if self.headers[TOKEN_HEADER] not in imds.tokens:
                    return self._answer(401, "Unauthorized")
                text = imds.paths.get(self.path.removeprefix("/latest/meta-data/"))
                return self._answer(404 if text is None else 200, text or "")

            def _answer(self, code: int, text: str) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def interrupt(self, in_s: float, action: str = "terminate") -> float:
        """Have an interruption stand there, so many seconds ahead; when that is (seconds since the epoch)."""
        at = int(time.time() + in_s)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        self.paths["spot/instance-action"] = f'{{"action": "{action}", "time": "{stamp}"}}'
        return float(at)

    def shut(self) -> None:
        self._server.shutdown()
        self._server.server_close()
