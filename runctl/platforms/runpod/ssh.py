"""SSH to a pod: who answers there is who answered first, and commands come back with their exit codes.

With paramiko: the runpod SDK brings it along, and asyncssh would be a second SSH in an event loop of its own beside
our threads. The SDK's own SSH class replaces the handler of Ctrl-C and believes any host, so it is not used.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runctl.errors import MissingExtra, NotAllowed, PlatformError
from runctl.platforms.runpod.keys import KeyPair, PinnedHost

#: How long the pod may take to answer at all, and then between two answers (seconds).
CONNECT_S = 10.0
_ANSWER_S = 30.0
_KEEPALIVE_S = 15
#: What a command may print; of more only the end is kept, and whoever expects more takes `stream`.
PRINTED_BYTES = 1 << 20


class SshError(PlatformError):
    """A pod does not answer, does not let us in, or broke off: it may be otherwise in a while."""


class HostKeyChanged(NotAllowed):
    """Somebody else answers where the pod was."""


class DiskFull(PlatformError):
    """The pod has no place left."""


@dataclass(frozen=True)
class Address:
    """Where a pod's SSH is."""

    host: str
    port: int
    user: str = "root"

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Attributes:
        exit_code: its own; -1 if a signal ended it.
        cut: whether it printed more than is kept.
    """

    exit_code: int
    stdout: str
    stderr: str
    cut: bool = False


class Connection:
    """A pod's SSH; threads may share it.

    Args:
        address: where.
        pair: the keys with which we come; no others are tried, and no agent is asked or forwarded.
        pinned: the pod's own key: kept at first sight, and the only one taken from then on.

    Raises:
        SshError: if it does not answer, or does not let us in (yet: a pod installs our key when it starts).
        HostKeyChanged: if it shows another key than before.
    """

    def __init__(self, address: Address, pair: KeyPair, pinned: PinnedHost) -> None:
        paramiko = _paramiko()
        self.address = address
        known = pinned.read()
        self._client = paramiko.SSHClient()
        named = f"[{address.host}]:{address.port}" if address.port != 22 else address.host
        if known is not None:
            kind, _, blob = known.partition(" ")
            entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{named} {kind} {blob}")
            self._client.get_host_keys().add(named, kind, entry.key)
        self._client.set_missing_host_key_policy(_FirstSight(known, pinned))
        try:
            self._client.connect(
                address.host, address.port, address.user,
                pkey=paramiko.Ed25519Key.from_private_key_file(str(pair.path)),
                timeout=CONNECT_S, banner_timeout=CONNECT_S, auth_timeout=CONNECT_S, channel_timeout=_ANSWER_S,
                allow_agent=False, look_for_keys=False,
            )  # fmt: skip
            transport = self._client.get_transport()
            assert transport is not None
            transport.set_keepalive(_KEEPALIVE_S)
            self._transport = transport
        except (paramiko.BadHostKeyException, _OtherKey) as error:
            self.close()
            raise HostKeyChanged(
                f"{address} shows another host key than when it was seen first ({pinned.place}): somebody else may "
                "answer there, so nothing is sent. If you know that the pod was made anew, remove that file"
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.close()
            raise SshError(f"SSH to {address}: {_said(error)}") from error

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def run(self, command: str, *, stdin: bytes = b"", timeout_s: float = 60.0) -> Result:
        """Run a command of `sh` to its end.

        Args:
            command: for the pod's shell.
            stdin: what it reads.
            timeout_s: how long it may take.

        Raises:
            SshError: if it did not end in time, or the connection broke.
        """
        deadline = time.monotonic() + timeout_s
        with self.translated(f"`{command[:60]}`"):
            channel = self._transport.open_session(timeout=_ANSWER_S)
            with contextlib.closing(channel):
                channel.settimeout(_ANSWER_S)
                channel.exec_command(command)
                if stdin:
                    channel.sendall(stdin)
                channel.shutdown_write()
                printed = {False: bytearray(), True: bytearray()}
                while True:
                    # Asked before the reading: what comes after the end was there before it.
                    ended = channel.exit_status_ready()
                    got = self._drain(channel, printed)
                    if ended and not got:
                        break
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"it has not ended within {timeout_s:g} s")
                    if not got:
                        time.sleep(0.01)
                code = channel.recv_exit_status()
        out, err = (bytes(one[-PRINTED_BYTES:]).decode(errors="replace") for one in printed.values())
        return Result(code, out, err, any(len(one) > PRINTED_BYTES for one in printed.values()))

    def stream(self, command: str) -> Iterator[bytes]:
        """What a command prints, in pieces, as it comes; an answer is waited for as long as between any two.

        Raises:
            SshError: if the connection broke.
            PlatformError: if the command failed.
        """
        with self.translated(f"`{command[:60]}`"):
            channel = self._transport.open_session(timeout=_ANSWER_S)
            with contextlib.closing(channel):
                channel.settimeout(_ANSWER_S)
                channel.exec_command(command)
                while piece := channel.recv(1 << 18):
                    yield piece
                said = channel.recv_stderr(1 << 12).decode(errors="replace").strip()
                if (code := channel.recv_exit_status()) != 0:
                    # Without a code of its own it was cut off: by a signal, or with the connection.
                    raise (SshError if code < 0 else PlatformError)(
                        f"{self.address}: `{command[:60]}` ended with code {code}: {said}"
                    )

    @staticmethod
    def _drain(channel: Any, printed: dict[bool, bytearray]) -> bool:
        got = False
        for err, ready, receive in (
            (False, channel.recv_ready, channel.recv),
            (True, channel.recv_stderr_ready, channel.recv_stderr),
        ):
            while ready():
                printed[err] += receive(1 << 16)
                del printed[err][: -PRINTED_BYTES - 1]  # one more, by which it is known
                got = True
        return got

    def check(self, command: str, *, stdin: bytes = b"", timeout_s: float = 60.0) -> str:
        """Run a command that must succeed; what it printed.

        Raises:
            SshError: if it does not end in time.
            DiskFull: if it says so.
            PlatformError: if it fails, with its last words, or prints more than is kept.
        """
        result = self.run(command, stdin=stdin, timeout_s=timeout_s)
        if result.exit_code != 0:
            said = (result.stderr or result.stdout).strip()[-2000:] or "it said nothing"
            kind = DiskFull if "No space left" in said else PlatformError
            raise kind(f"{self.address}: `{command[:60]}` ended with code {result.exit_code}: {said}")
        if result.cut:
            raise PlatformError(f"{self.address}: `{command[:60]}` printed more than {PRINTED_BYTES} bytes")
        return result.stdout

    @property
    def alive(self) -> bool:
        return bool(self._transport.is_active())

    def open_sftp(self) -> Any:
        """A channel of its own for files, for one thread."""
        sftp = self._client.open_sftp()
        sftp.get_channel().settimeout(_ANSWER_S)
        return sftp

    @contextlib.contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """What paramiko raises in our words; that there is no such file stays what it is."""
        paramiko = _paramiko()
        try:
            yield
        except (FileNotFoundError, PlatformError):
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise PlatformError(f"{what}: {error.strerror} on this machine: {error.filename}") from error
            lost = not self.alive or isinstance(error, (TimeoutError, ConnectionError, socket.timeout))
            raise (SshError if lost else PlatformError)(f"{self.address}: {what}: {_said(error)}") from error
        except (paramiko.SSHException, EOFError) as error:
            raise SshError(f"{self.address}: {what}: {_said(error)}") from error


class _OtherKey(Exception):
    """A host shows a key of another kind than the one that is known."""


class _FirstSight:
    """Takes the key of a host that is not known yet, and keeps it."""

    def __init__(self, known: str | None, pinned: PinnedHost) -> None:
        self._known = known
        self._pinned = pinned

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        told = f"{key.get_name()} {key.get_base64()}"
        if self._known is None:
            self._pinned.keep(told)
        elif told != self._known:
            raise _OtherKey


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _paramiko() -> Any:
    """The library, imported late; it writes tracebacks of broken connections into the log, which we tell ourselves."""
    try:
        import paramiko
    except ImportError as error:
        raise MissingExtra("platform=runpod", "runpod") from error
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    return paramiko
