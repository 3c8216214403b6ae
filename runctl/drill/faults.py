"""Errors to order: which call, which answer, how often, and whether the call is carried out all the same."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        action: the API call, such as RunInstances, SendCommand or PutObject; `*` is every one.
        code: AWS's code; empty for a connection that is closed without an answer, None for an answer that is only late.
        status: of the HTTP answer.
        message: AWS's words.
        times: how many calls meet it.
        skip: how many calls pass before it.
        market: only requests for `spot` or `on_demand`; None is any.
        after: the call is carried out, and only then answered so.
        delay_s: how long the answer takes.
        key: only requests that this access key signed; None is any.
    """

    action: str
    code: str | None = ""
    status: int = 400
    message: str = ""
    times: int = 1
    skip: int = 0
    market: str | None = None
    after: bool = False
    delay_s: float = 0.0
    key: str | None = None


@dataclass(frozen=True)
class Call:
    """One call as the cloud saw it; `path` is an object's, for S3, and `key` the access key that signed."""

    service: str
    action: str
    market: str | None
    at: float
    error: str
    path: str = ""
    key: str = ""


class Faults:
    """The queue of faults, and the record of calls that met it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: list[Fault] = []
        self.calls: list[Call] = []

    def inject(self, fault: Fault) -> None:
        """Have later calls meet a fault; of several that fit, the one injected first comes first."""
        with self._lock:
            self._queue.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._queue.clear()

    def meet(self, service: str, action: str, market: str | None, path: str = "", key: str = "") -> Fault | None:
        """The fault that this call meets, used up once; the call is noted."""
        with self._lock:
            met = None
            for number, fault in enumerate(self._queue):
                if fault.action not in (action, "*") or fault.market not in (None, market):
                    continue
                if fault.key not in (None, key):
                    continue
                if fault.skip:
                    self._queue[number] = replace(fault, skip=fault.skip - 1)
                    continue
                met = fault
                if fault.times > 1:
                    self._queue[number] = replace(fault, times=fault.times - 1)
                else:
                    del self._queue[number]
                break
            error = "" if met is None or met.code is None else met.code or "no answer"
            self.calls.append(Call(service, action, market, time.time(), error, path, key))
            return met


def answer(fault: Fault, service: str, as_json: bool) -> tuple[int, str, bytes]:
    """Status, content type and body of a fault, in the words of the service that it seems to come from."""
    message = fault.message or f"injected {fault.code}"
    if as_json:
        body: dict[str, Any] = {"__type": fault.code or "", "message": message}
        return fault.status, "application/x-amz-json-1.1", json.dumps(body).encode()
    if service == "ec2":
        text = (
            f"<Response><Errors><Error><Code>{fault.code}</Code><Message>{_escaped(message)}</Message></Error></Errors>"
            "<RequestID>drill</RequestID></Response>"
        )
    else:
        text = f"<Error><Code>{fault.code}</Code><Message>{_escaped(message)}</Message></Error>"
    return fault.status, "text/xml", f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
