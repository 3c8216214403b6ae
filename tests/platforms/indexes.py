"""A package index on loopback, behind a token if there is one, with wheels that are made on the spot."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USER = "robot"


def wheel(
    name: str, version: str, body: str, needs: tuple[str, ...] = (), *, script: str | None = None,
    more: dict[str, str] | None = None,
) -> tuple[str, bytes]:  # fmt: skip
    """A pure wheel with one module, or with `more` a package, and perhaps a script; its file name and content."""
    info = f"{name}-{version}.dist-info"
    files = {
        (f"{name}/__init__.py" if more else f"{name}.py"): body,
        **(more or {}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {one}\n" for one in needs),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **({f"{name}-{version}.data/scripts/{name}": script} if script else {}),
    }  # fmt: skip
    record = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text.encode())}")
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in files.items():
            member = zipfile.ZipInfo(path)
            member.external_attr = (0o100755 if "/scripts/" in path else 0o100644) << 16
            archive.writestr(member, text)
    return f"{name}-{version}-py3-none-any.whl", packed.getvalue()


class Index:
    """Serves `/simple/` and counts what is fetched.

    Args:
        token: without which everything is refused with 401; None is open to all.
        files: name → content of every wheel.
    """

    def __init__(self, files: dict[str, bytes], token: str | None = None) -> None:
        self.fetched: list[str] = []
        self.refused = 0
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = token and "Basic " + base64.b64encode(f"{USER}:{token}".encode()).decode()
                if wanted and self.headers.get("Authorization") != wanted:
                    index.refused += 1
                    self.answer(401, b"", {"WWW-Authenticate": "Basic realm=index"})
                    return
                parts = self.path.strip("/").split("/")
                if parts[0] == "files" and parts[-1] in files:
                    if self.command == "GET":
                        index.fetched.append(parts[-1])
                    self.answer(200, files[parts[-1]])
                    return
                links = [
                    f'<a href="/files/{name}#sha256={hashlib.sha256(data).hexdigest()}">{name}</a>'
                    for name, data in files.items()
                    if name.split("-")[0].replace("_", "-") == parts[-1]
                ]
                self.answer(200 if links else 404, f"<html><body>{''.join(links)}</body></html>".encode())

            do_HEAD = do_GET

            def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {"Content-Type": "text/html", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}/simple"
        self._open = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._server.shutdown()
        self._server.server_close()
