"""Files to and from a bucket: in parts, several at once, from threads.

botocore's blocking client and not s3fs's, which runs all requests in one event loop and signs every byte; and parts are
read from the file while they are sent, so that memory does not depend on their size (benchmarks/transfer.py).

Who retries: botocore repeats a request, with the same part; a part whose download breaks off is asked for again here.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from runctl.storage.base import unwatched

T = TypeVar("T")

PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 8
#: docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_PARTS_AT_MOST = 10_000
_PIECE_BYTES = 1 << 20
#: Of 1,000 parts, with one request in ten failing, none fails for good in 99 files of 100.
_ATTEMPTS = 5
#: Whoever reads a small object waits for it.
_READS = 3
_PAUSE_S = 0.5
#: S3's and the other services' names for credentials that were good once; read anew, they may be again.
EXPIRED = ("RequestExpired", "ExpiredToken", "ExpiredTokenException")

#: What S3 says where a right is missing, to a HEAD in numbers alone; and which right each of its operations asks for.
_REFUSED = ("AccessDenied", "403")
_RIGHTS = {
    # Whoever may not list is not told that there is no such object.
    "GetObject": "s3:GetObject (and s3:ListBucket, where there may be no such object)",
    "HeadObject": "s3:GetObject (and s3:ListBucket, where there may be no such object)",
    "ListObjects": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
}


class Bucket:
    """Files of one bucket.

    Args:
        files: s3fs's file system, whose settings are used.
        name: the bucket.
    """

    def __init__(self, files: Any, name: str) -> None:
        self._files = files
        self._name = name
        self._made: dict[int, Any] = {}
        self._making = threading.Lock()
        # Shared by all files, so that many at once are no more requests at once than one large one.
        self._parts = ThreadPoolExecutor(_PARTS_AT_ONCE, "runctl-part")

    def renew(self) -> None:
        """Read the credentials anew at the next request: a session reads them once, and somebody may sign in again."""
        with self._making:
            self._made.clear()
            self._files.session = None
            give_session(self._files)
            self._files.connect(refresh=True)

    def read(self, key: str) -> bytes | None:
        """A small object's bytes, in one request; None if there is none.

        Raises:
            Exception: what botocore raises, also for bytes that are not those that were written.
        """
        from botocore.exceptions import ClientError

        where = self._where(key, "get_object")
        try:
            # Where the object came with a checksum, it is compared.
            answer = self._client(_READS).get_object(**{"ChecksumMode": "ENABLED", **where})
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        with contextlib.closing(answer["Body"]) as body:
            return bytes(body.read())

    def put(self, source: Path, key: str, moved: Callable[[int], None] = unwatched) -> None:
        """Publish a file whole.

        Args:
            moved: called with bytes as they move, part by part, from several threads.

        Raises:
            OSError: if the file cannot be read.
            Exception: what botocore raises; the parts that arrived have been discarded then, if that was possible.
        """
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            step = part_bytes(size)
            if size <= step:
                body = _Part(file.fileno(), 0, size)
                where = self._where(key, "put_object")
                self._all(lambda whole: self._client().put_object(**where, Body=whole), [body])
                moved(size)
                return
            upload = self._client().create_multipart_upload(**self._where(key, "create_multipart_upload"))["UploadId"]
            where = {**self._where(key, "upload_part"), "UploadId": upload}
            done: dict[int, dict[str, Any]] = {}

            def send(number: int) -> None:
                start = (number - 1) * step
                body = _Part(file.fileno(), start, min(step, size - start))
                answer = self._client().upload_part(**where, PartNumber=number, Body=body)
                # A checksum that botocore sent comes back, and belongs to what the parts are named by.
                tags = {name: value for name, value in answer.items() if name == "ETag" or name.startswith("Checksum")}
                done[number] = {"PartNumber": number, **tags}
                moved(len(body))

            try:
                self._all(send, range(1, -(-size // step) + 1))
                self._client().complete_multipart_upload(
                    **{**self._where(key, "complete_multipart_upload"), "UploadId": upload},
                    MultipartUpload={"Parts": [done[number] for number in sorted(done)]},
                )
            except BaseException:
                with contextlib.suppress(Exception):
                    self._client().abort_multipart_upload(Bucket=self._name, Key=key, UploadId=upload)
                raise

    def get(
        self,
        key: str,
        target: Path,
        size_bytes: int,
        stop: threading.Event,
        moved: Callable[[int], None] = unwatched,
    ) -> None:
        """Copy an object of a known size into a file.

        Args:
            moved: called with bytes as they move, piece by piece, from several threads.

        Raises:
            OSError: if the file cannot be written, or `stop` was set.
            Exception: what botocore raises.
        """
        step = part_bytes(size_bytes)
        with target.open("wb", buffering=0) as file:

            def receive(start: int) -> None:
                self._receive(key, file.fileno(), start, min(start + step, size_bytes), stop, moved=moved)

            self._all(receive, range(0, size_bytes, step))

    def _receive(
        self, key: str, target: int, start: int, end: int, stop: threading.Event, *, moved: Callable[[int], None]
    ) -> None:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        for attempt in range(1, _ATTEMPTS + 1):
            try:
                # What arrived before a connection broke need not come again.
                for piece in self._pieces(key, start, end):
                    if stop.is_set():
                        raise InterruptedError(errno.EINTR, "stopped")
                    os.pwrite(target, piece, start)
                    start += len(piece)
                    moved(len(piece))
            except (HTTPClientError, IncompleteReadError):
                if attempt == _ATTEMPTS:
                    raise
                stop.wait(_PAUSE_S * attempt)
            else:
                return

    def _pieces(self, key: str, start: int, end: int) -> Iterable[bytes]:
        if start == end:
            return
        answer = self._client().get_object(**self._where(key, "get_object"), Range=f"bytes={start}-{end - 1}")
        with contextlib.closing(answer["Body"]) as body:
            while piece := body.read(_PIECE_BYTES):
                yield piece

    def _all(self, call: Callable[[T], object], parts: Iterable[T]) -> None:
        """Have all parts done; at the first that fails, nothing of the rest is left running."""
        futures = [self._parts.submit(call, part) for part in parts]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()
            wait(futures)
        for future in futures:
            if not future.cancelled():
                future.result()

    def _where(self, key: str, method: str) -> dict[str, Any]:
        from s3fs.utils import ParamKwargsHelper

        more = {**self._files.s3_additional_kwargs, **self._files.req_kw}
        return {"Bucket": self._name, "Key": key, **ParamKwargsHelper(self._client()).filter_dict(method, more)}

    def _client(self, attempts: int = _ATTEMPTS) -> Any:
        with self._making:
            if attempts not in self._made:
                self._made[attempts] = _client(self._files, attempts)
            return self._made[attempts]


class _Part(io.RawIOBase):
    """A range of a file as a body that can be sent again; it holds nothing."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._size = size
        self._at = 0

    def __len__(self) -> int:
        return self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self._at)
        data = os.pread(self._descriptor, left if size is None or size < 0 else min(size, left), self._start + self._at)
        self._at += len(data)
        return data


def broken_off() -> tuple[type[Exception], ...]:
    """What is raised while an answer's bytes come, which is after botocore's own tries."""
    from aiohttp import ClientError
    from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError

    return ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError


def expired(error: BaseException | None) -> bool:
    """Whether an error, or what it came of, is AWS's word for credentials that have expired."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Code") in EXPIRED:
            return True
        error = error.__cause__
    return False


def refused_right(error: BaseException | None) -> str | None:
    """The right that S3 missed when it refused something, which it does not name itself; None for other errors."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Code") in _REFUSED:
            operation = str(getattr(error, "operation_name", ""))
            return _RIGHTS.get(operation, f"s3:{operation}")
        error = error.__cause__
    return None


def part_bytes(size_bytes: int) -> int:
    """The size of the parts of a file: such that they are no more than S3 allows, in whole MiB."""
    least = -(-size_bytes // _PARTS_AT_MOST)
    return max(PART_BYTES, -(-least // (1 << 20)) << 20)


def share_descriptions(session: Any) -> None:
    """Have a session of botocore's read AWS's descriptions of its services where others have read them.

    Each session keeps its own otherwise: 10 MB and more for S3, 25 MB for EC2.
    """
    session.lazy_register_component("data_loader", lambda: _descriptions(session.get_config_variable("data_path")))


@functools.cache
def _descriptions(data_path: str | None) -> Any:
    from botocore.loaders import create_loader

    return create_loader(data_path)


def give_session(files: Any) -> None:
    """Have a file system of s3fs, which makes its session when it is first used, use one that shares descriptions."""
    from aiobotocore.session import AioSession

    if files.session is None:
        files.session = AioSession(**files.kwargs)
        files._session_is_owned = False  # or a refresh would replace it by one that shares nothing
        share_descriptions(files.session)


def _client(files: Any, attempts: int) -> Any:
    """A blocking client with the settings of a file system of s3fs, which its `set_session` reads likewise."""
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.session import Session

    given = {
        "aws_access_key_id": files.key,
        "aws_secret_access_key": files.secret,
        "aws_session_token": files.token,
        "endpoint_url": files.endpoint_url,
        "use_ssl": files.use_ssl,
        **files.client_kwargs,
    }
    config = {
        **files.config_kwargs,
        "retries": {"mode": "standard", "total_max_attempts": attempts},
        "max_pool_connections": _PARTS_AT_ONCE,
        # Over TLS it is so anyway: botocore's checksum of each part goes with it, which the server compares.
        "s3": {**files.config_kwargs.get("s3", {}), "payload_signing_enabled": False},
        # The manifest's hash is looked at once the file is whole.
        "response_checksum_validation": "when_required",
    }
    if files.anon:
        config["signature_version"] = UNSIGNED
    settings = {name: value for name, value in given.items() if value is not None}
    session = Session(**files.kwargs)
    share_descriptions(session)
    return session.create_client("s3", config=Config(**config), **settings)
