"""A proxy before an HTTP server that does what networks and overloaded storage do, in an order given by a seed.

In one thing it is S3 and not the network: a body that does not match the checksum in its headers is refused, as S3
does and moto does not.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import random
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
OTHER_BYTES = b"<Error><Code>BadDigest</Code><Message>The checksum did not match.</Message></Error>"
#: What may go wrong with a request: before it is done, and afterwards.
KINDS = ("busy", "reset", "reset in its body", "answer lost", "answer cut", "answer reset")


class Proxy:
    """Hands requests on, or not.

    Args:
        port: the server's, on loopback.
        seed: of the order of faults.

    Attributes:
        rate: share of the requests that fail.
        down: whether every connection is reset, as if nobody were there.
        choose: what happens to a request (`KINDS`, "stall", "flip", "flip the answer" or None); given its method,
            path and body.
        done: how often each fault was done.
    """

    def __init__(self, port: int, seed: int) -> None:
        self._server = port
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.rate = 0.0
        self.down = False
        self.choose: Callable[[str, str, bytes], str | None] = self._at_random
        self.done: Counter[str] = Counter()
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._listener.close()

    def _at_random(self, method: str, path: str, body: bytes) -> str | None:
        with self._lock:
            return self._random.choice(KINDS) if self._random.random() < self.rate else None

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException), sock, sock.makefile("rb") as file:
            while not self.down and self._one(sock, file):
                pass
            if self.down:
                reset(sock)

    def _one(self, sock: socket.socket, file) -> bool:
        words = file.readline().split()
        if len(words) != 3:
            return False
        method, path = words[0].decode(), words[1].decode()
        headers: dict[str, str] = {}
        while line := file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if headers.pop("expect", ""):
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(headers.get("content-length", 0))
        body = file.read(length // 2)
        fault = "down" if self.down else self.choose(method, path, body)
        if fault in ("down", "reset in its body") or (fault == "reset" and length == 0):
            return self._reset(sock, fault)
        if fault == "stall":  # counted first: whoever waits may give up while the rest of the body is on its way
            self.done[fault] += 1
        body += file.read(length - len(body))
        if fault == "reset":
            return self._reset(sock, fault)
        if fault == "stall":
            self._ended.wait(60)
            return False
        if fault == "busy":
            self.done[fault] += 1
            return answer(sock, 503, BUSY)
        if fault == "flip" and body:
            self.done[fault] += 1
            body = flipped(body)
        if not matches(headers, body):
            return answer(sock, 400, OTHER_BYTES)
        server = http.client.HTTPConnection("127.0.0.1", self._server, timeout=60)
        server.request(method, path, body or None, headers)
        got = server.getresponse()
        data = got.read()
        server.close()
        if fault == "answer lost":
            return self._reset(sock, fault)
        kept = [(name, value) for name, value in got.getheaders() if name.lower() not in HOP]
        size = got.headers.get("content-length", "0") if method == "HEAD" else str(len(data))
        head = [f"HTTP/1.1 {got.status} {got.reason}", *(f"{name}: {value}" for name, value in kept)]
        sock.sendall("\r\n".join([*head, f"Content-Length: {size}", "", ""]).encode("latin-1"))
        if fault == "flip the answer" and data:
            self.done[fault] += 1
            data = flipped(data)
        if fault in ("answer cut", "answer reset"):
            sock.sendall(data[: len(data) // 2])
            if fault == "answer reset":
                return self._reset(sock, fault)
            self.done[fault] += 1
            return False
        sock.sendall(data)
        return True

    def _reset(self, sock: socket.socket, fault: str) -> bool:
        self.done[fault] += 1
        reset(sock)
        return False


HOP = ("content-length", "transfer-encoding", "connection", "keep-alive")


def answer(sock: socket.socket, code: int, body: bytes) -> bool:
    sock.sendall(b"HTTP/1.1 %d Error\r\nContent-Length: %d\r\n\r\n%b" % (code, len(body), body))
    return True


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.shutdown(socket.SHUT_RD)


def flipped(data: bytes) -> bytes:
    other = bytearray(data)
    other[len(other) // 2] ^= 1
    return bytes(other)


def matches(headers: dict[str, str], body: bytes) -> bool:
    """Whether a body is what its headers say, as far as they say anything."""
    crc = headers.get("x-amz-checksum-crc32")
    sha = headers.get("x-amz-content-sha256", "")
    return (crc is None or base64.b64decode(crc) == zlib.crc32(body).to_bytes(4, "big")) and (
        len(sha) != 64 or hashlib.sha256(body).hexdigest() == sha
    )
