"""A small part of S3 on loopback that is not the bottleneck: a process per connection, files on disk, sendfile.

    python benchmarks/s3server.py FOLDER PORT

An object is a folder with its parts as they came, so that neither completing an upload nor reading one copies
anything. It checks no signatures and no checksums, and answers only what the clients of `transfer.py` ask.
"""

from __future__ import annotations

import email.utils
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import urllib.parse
from pathlib import Path
from xml.sax.saxutils import escape

BUFFER_BYTES = 1 << 20
XML = '<?xml version="1.0" encoding="UTF-8"?>'


class Connection:
    """One client's requests, one after the other."""

    def __init__(self, root: Path, sock: socket.socket) -> None:
        self.root = root
        self.sock = sock
        self.file = sock.makefile("rb", buffering=BUFFER_BYTES)

    def serve(self) -> None:
        while self._one():
            pass

    def _one(self) -> bool:
        words = self.file.readline().split()
        if len(words) != 3:
            return False
        self.headers: dict[str, str] = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        if self.headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        path, _, query = words[1].decode().partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        self.bucket, _, self.key = urllib.parse.unquote(path).lstrip("/").partition("/")
        self.uploading = self.root / "uploads" / re.sub(r"\W", "", self.query.get("uploadId", "none"))
        getattr(self, f"_{words[0].decode().lower()}")()
        return self.headers.get("connection", "").lower() != "close"

    def _folder(self) -> Path:
        return self.root / "objects" / self.bucket / urllib.parse.quote(self.key, safe="")

    # --- the methods ---

    def _put(self) -> None:
        if not self.key:
            (self.root / "objects" / self.bucket).mkdir(parents=True, exist_ok=True)
            self._answer(200)
        elif "partNumber" in self.query:
            self._receive(self.uploading / f"{int(self.query['partNumber']):05d}")
            self._answer(200, {"ETag": f'"{secrets.token_hex(16)}"'})
        else:
            self.uploading = self.root / "uploads" / secrets.token_hex(16)
            self.uploading.mkdir()
            self._receive(self.uploading / "00001")
            self._publish()
            self._answer(200, {"ETag": f'"{secrets.token_hex(16)}"'})

    def _post(self) -> None:
        body = self.file.read(int(self.headers.get("content-length", 0)))
        if "uploads" in self.query:
            upload = secrets.token_hex(16)
            (self.root / "uploads" / upload).mkdir()
            (self.root / "uploads" / f"{upload}.key").write_text(f"{self.bucket}/{self.key}")
            self._xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")
        elif "uploadId" in self.query:
            wanted = {f"{int(number):05d}" for number in re.findall(rb"<PartNumber>(\d+)<", body)}
            if wanted - {path.name for path in self.uploading.iterdir()}:
                self._answer(400)
                return
            self._publish()
            self._xml("CompleteMultipartUploadResult", f"<Key>{escape(self.key)}</Key><ETag>x-2</ETag>")
        else:
            self._answer(501)

    def _delete(self) -> None:
        shutil.rmtree(self.uploading if "uploadId" in self.query else self._folder(), ignore_errors=True)
        if "uploadId" in self.query:
            self.uploading.with_suffix(".key").unlink(missing_ok=True)
        self._answer(204)

    def _head(self) -> None:
        if not self.key:
            self._answer(200)
        elif self._folder().is_dir():
            size = sum(path.stat().st_size for path in self._folder().iterdir())
            self._answer(200, self._described(), size)
        else:
            self._answer(404)

    def _get(self) -> None:
        if "location" in self.query:
            self._xml("LocationConstraint", "")
        elif "uploads" in self.query:
            self._list_uploads()
        elif not self.key:
            self._list()
        elif self._folder().is_dir():
            self._send()
        else:
            self._answer(404)

    # --- bodies ---

    def _receive(self, path: Path) -> None:
        with path.open("wb", buffering=0) as target:
            if "aws-chunked" in self.headers.get("content-encoding", ""):
                while count := int(self.file.readline().split(b";")[0], 16):
                    self._copy(target.fileno(), count)
                    self.file.readline()
                while self.file.readline().strip():
                    pass  # trailing checksums
            else:
                self._copy(target.fileno(), int(self.headers.get("content-length", 0)))

    def _copy(self, target: int, count: int) -> None:
        while count:
            # What is buffered already, or one large read from the socket.
            piece = self.file.read1(min(count, BUFFER_BYTES))
            if not piece:
                raise ConnectionError("the client went away")
            os.write(target, piece)
            count -= len(piece)

    def _send(self) -> None:
        parts = sorted(self._folder().iterdir())
        sizes = [path.stat().st_size for path in parts]
        begin, end, code, headers = 0, sum(sizes), 200, self._described()
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", "")):
            begin = int(found[1])
            end = min(end, int(found[2]) + 1 if found[2] else end)
            code, headers = 206, {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{sum(sizes)}"}
        self._answer(code, headers, end - begin)
        at = 0
        for path, size in zip(parts, sizes, strict=True):
            first, last = max(begin, at), min(end, at + size)
            if first < last:
                with path.open("rb") as source:
                    while first < last:
                        first += os.sendfile(self.sock.fileno(), source.fileno(), first - at, last - first)
            at += size

    def _publish(self) -> None:
        folder = self._folder()
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.uploading.rename(folder)
        self.uploading.with_suffix(".key").unlink(missing_ok=True)

    # --- answers ---

    def _list(self) -> None:
        bucket, prefix = self.root / "objects" / self.bucket, self.query.get("prefix", "")
        delimiter, found, common = self.query.get("delimiter", ""), "", set()
        for folder in sorted(bucket.iterdir()):
            key = urllib.parse.unquote(folder.name)
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in key[len(prefix) :]:
                common.add(prefix + key[len(prefix) :].split(delimiter)[0] + delimiter)
                continue
            size = sum(path.stat().st_size for path in folder.iterdir())
            found += (
                f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>x</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
            )
        found += "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(common))
        self._xml("ListBucketResult", f"<Name>{self.bucket}</Name><IsTruncated>false</IsTruncated>{found}")

    def _list_uploads(self) -> None:
        found = ""
        for path in sorted((self.root / "uploads").glob("*.key")):
            bucket, _, key = path.read_text().partition("/")
            if bucket == self.bucket and key.startswith(self.query.get("prefix", "")):
                found += f"<Upload><Key>{escape(key)}</Key><UploadId>{path.stem}</UploadId></Upload>"
        self._xml("ListMultipartUploadsResult", f"<IsTruncated>false</IsTruncated>{found}")

    def _described(self) -> dict[str, str]:
        changed = email.utils.formatdate(self._folder().stat().st_mtime, usegmt=True)
        tag = urllib.parse.quote(self._folder().name)
        return {"ETag": f'"{tag[:32]}"', "Last-Modified": changed, "Accept-Ranges": "bytes"}

    def _xml(self, name: str, inner: str) -> None:
        body = f'{XML}<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{name}>'.encode()
        self._answer(200, {"Content-Type": "application/xml"}, len(body))
        self.sock.sendall(body)

    def _answer(self, code: int, headers: dict[str, str] | None = None, length: int = 0) -> None:
        lines = [f"HTTP/1.1 {code} X", f"Content-Length: {length}", "x-amz-request-id: 1"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())


def serve(root: Path, port: int) -> None:
    """Answer on loopback until killed."""
    for name in ("objects", "uploads"):
        (root / name).mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes of connections
    with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
        while True:
            sock, _ = listener.accept()
            if os.fork():
                sock.close()
                continue
            listener.close()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                Connection(root, sock).serve()
            except OSError:
                pass  # the client went away
            finally:
                os._exit(0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
