"""Every request with its answer, kept as files: what a test looks through for what must not be there."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from runctl.drill.request import Request

#: Signatures are no secret's text, and differ each time.
_LEFT_OUT = ("HTTP_AUTHORIZATION",)


class Recorder:
    """Between the server and whoever answers.

    Args:
        folder: for files `NUMBER.SERVICE.ACTION.request` (first line, headers, body) and `….answer` (status, body).
        app: answers.
    """

    def __init__(self, folder: Path, app: Callable[..., Iterable[bytes]]) -> None:
        folder.mkdir()
        self._folder = folder
        self._app = app
        self._numbers = itertools.count(1)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        if path.startswith("/-/"):
            return self._app(environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        name = f"{next(self._numbers):06}.{_named(environ, path)}"
        (self._folder / f"{name}.request").write_bytes(_head(environ) + b"\n" + body)
        told: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            told.extend([status, *(f"{key}: {value}" for key, value in headers), ""])
            return start_response(status, headers, *more)

        answer = self._app(environ, start)
        try:
            data = b"".join(answer)
        finally:
            if hasattr(answer, "close"):
                answer.close()
        (self._folder / f"{name}.answer").write_bytes("\n".join(told).encode() + b"\n" + data)
        return [data]


def _named(environ: dict[str, Any], path: str) -> str:
    if path.startswith("/imds/"):
        return "imds.get"
    request = Request.of(environ)
    return f"{request.service}.{request.action}"


def _head(environ: dict[str, Any]) -> bytes:
    line = f"{environ['REQUEST_METHOD']} {environ.get('RAW_URI') or environ.get('PATH_INFO', '')}"
    headers = [
        f"{key}: {value}"
        for key, value in environ.items()
        if (key.startswith("HTTP_") or key == "CONTENT_TYPE") and key not in _LEFT_OUT
    ]
    return "\n".join([line, *headers, ""]).encode()
