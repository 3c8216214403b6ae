"""A real S3 server on loopback: OpenStack Swift, whose S3 face verifies signatures, names and parts as S3 does.

Four processes, as in every Swift: the proxy that answers, and one each for accounts, containers and objects. One disk,
one copy of everything, none of the daemons that look after it: it lives as long as a drill. (docs.openstack.org/swift)
"""

from __future__ import annotations

import contextlib
import getpass
import http.client
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runctl import processes
from runctl.errors import MissingExtra, PlatformError

_STARTS_WITHIN_S = 60.0
_ANSWERS_WITHIN_S = 120.0
_PIECE_BYTES = 1 << 16
_BACK_ENDS = ("account", "container", "object")
_CLUSTER = """
[swift-hash]
swift_hash_path_prefix = drill
swift_hash_path_suffix = drill
[storage-policy:0]
name = one
default = yes
"""
_SERVER = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}
devices = {folder}
user = {user}
workers = 0
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
"""
_BACK_END = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PIPELINE = ("catch_errors", "gatekeeper", "listing_formats", "s3api", "tempauth", "bulk", "slo")


class Swift:
    """Starts a Swift on loopback, which is a WSGI application as well: requests are handed on as they come.

    Args:
        folder: for what it keeps, on a file system with extended attributes.
        keys: secrets by access key, which is ACCOUNT:USER; who has one may do everything in that account.
        region: that requests must be signed for.
    """

    def __init__(self, folder: Path, keys: dict[str, str], region: str) -> None:
        self._folder = folder
        self._keys = keys
        self._region = region
        self._servers: list[subprocess.Popen[bytes]] = []
        self._port = 0

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            MissingExtra: without Swift.
            PlatformError: if it does not start.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # eventlet's own, that there are newer libraries
                from swift.common.ring import RingBuilder
        except ImportError as error:
            raise MissingExtra("drill.s3=swift", "swift") from error
        (self._folder / "disk").mkdir(parents=True)
        (self._folder / "swift.conf").write_text(_CLUSTER)
        for kind in _BACK_ENDS:
            port = self._configure(kind, _BACK_END.format(kind=kind))
            ring = RingBuilder(1, 1, 0)  # two parts, one copy, no wait between changes
            ring.add_dev(
                {"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1", "port": port, "device": "disk"}
            )
            ring.rebalance()
            ring.get_ring().save(str(self._folder / f"{kind}.ring.gz"))
        self._port = self._configure("proxy", self._proxy())
        for kind in (*_BACK_ENDS, "proxy"):
            with (self._folder / f"{kind}.log").open("wb") as log:
                self._servers.append(
                    subprocess.Popen(
                        [sys.executable, "-W", "ignore", "-m", "runctl.drill.swift", kind,
                         str(self._folder / f"{kind}.conf"), str(os.getpid())],
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    )
                )  # fmt: skip
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not self._answers():
            ended = [one for one in self._servers if one.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join((self._folder / f"{kind}.log").read_text()[-500:] for kind in (*_BACK_ENDS, "proxy"))
                self.stop()
                raise PlatformError(f"drill.s3=swift: Swift did not start:\n{logs}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End its processes; what it keeps is its folder's."""
        for one in self._servers:
            one.kill()
        for one in self._servers:
            one.wait()

    def _configure(self, kind: str, rest: str) -> int:
        """Write a server's settings; the port that it will have."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        settings = _SERVER.format(port=port, folder=self._folder, user=getpass.getuser())
        (self._folder / f"{kind}.conf").write_text(settings + rest)
        return port

    def _proxy(self) -> str:
        filters = {name: f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in _PIPELINE}
        filters["s3api"] += f"location = {self._region}\n"
        for key, secret in self._keys.items():
            filters["tempauth"] += f"user_{key.replace(':', '_')} = {secret} .admin\n"
        return (
            f"[pipeline:main]\npipeline = {' '.join(_PIPELINE)} proxy-server\n"
            "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n" + "".join(filters.values())
        )

    def _answers(self) -> bool:
        for conf in (*_BACK_ENDS, "proxy"):
            text = (self._folder / f"{conf}.conf").read_text()
            port = int(text.split("bind_port = ")[1].split()[0])
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                continue
            return False
        return True

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Hand a request on, byte for byte: whoever signed it signed what stands in it."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWERS_WITHIN_S)
        url = urlsplit(environ["RAW_URI"])
        path = f"{url.path}?{url.query}" if url.query else url.path
        connection.putrequest(environ["REQUEST_METHOD"], path, skip_host=True, skip_accept_encoding=True)
        for name, value in _headers(environ):
            connection.putheader(name, value)
        connection.endheaders()
        while length > 0 and (piece := environ["wsgi.input"].read(min(length, _PIECE_BYTES))):
            connection.send(piece)
            length -= len(piece)
        answer = connection.getresponse()
        own = ("connection", "transfer-encoding", "keep-alive", "date", "server")
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in own]
        start_response(f"{answer.status} {answer.reason}", headers)
        return _pieces(connection, answer)


def _headers(environ: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            yield name.replace("_", "-").title(), environ[name]
    for name, value in environ.items():
        # What it waits for, it was told already.
        if name.startswith("HTTP_") and name not in ("HTTP_EXPECT", "HTTP_CONNECTION"):
            yield name[5:].replace("_", "-").title(), value


def _pieces(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> Iterator[bytes]:
    with contextlib.closing(connection):
        while piece := answer.read(_PIECE_BYTES):
            yield piece


def main() -> int:
    """One server of a Swift, for as long as whoever started it lives."""
    from swift.common.wsgi import run_wsgi

    kind, conf, parent = sys.argv[1:]
    processes.die_with_parent(int(parent))
    code: int = run_wsgi(conf, f"{kind}-server")
    return code


if __name__ == "__main__":
    sys.exit(main())
