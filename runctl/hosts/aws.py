"""What an EC2 instance knows of itself, and when it is about to be taken away: its metadata service (IMDSv2).

Source of paths and times: the EC2 user guide, "Instance metadata categories" and "Spot Instance interruption notices":
a notice comes two minutes ahead, and should be looked for every five seconds or more often.
"""

from __future__ import annotations

import calendar
import contextlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from runctl.hosts.notices import Notice, Notices

ENDPOINT_ENV = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
#: How long ahead a notice comes.
NOTICE_S = 120.0
_ENDPOINT = "http://169.254.169.254"
_TOKEN_TTL_S = 21600
#: The service stands on the instance's own host: what has not come by then does not come.
_TIMEOUT_S = 2.0
#: What a request to it may raise.
_ERRORS = (OSError, http.client.HTTPException)


class Metadata:
    """The metadata service of this instance, asked with a token, never through a proxy."""

    def __init__(self) -> None:
        # botocore's own fetcher ignores the variable where it is used bare.
        self._endpoint = (os.environ.get(ENDPOINT_ENV) or _ENDPOINT).rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token = ""
        self._renew_at = 0.0

    def read(self, path: str) -> str | None:
        """A category's text, or None where there is none.

        Args:
            path: below `latest/meta-data/`.

        Raises:
            OSError: if the service does not answer, or refuses.
            http.client.HTTPException: if its answer breaks off.
        """
        try:
            return self._read(path)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            self._renew_at = 0.0  # the token is not, or no longer, good
            return self._read(path)

    def _read(self, path: str) -> str | None:
        if time.monotonic() >= self._renew_at:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL_S)}
            self._token = self._request("PUT", "api/token", ttl)
            self._renew_at = time.monotonic() + _TOKEN_TTL_S / 2
        try:
            return self._request("GET", f"meta-data/{path}", {"X-aws-ec2-metadata-token": self._token})
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def _request(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(f"{self._endpoint}/latest/{path}", headers=headers, method=method)
        with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
            return str(answer.read().decode())


@dataclass(frozen=True)
class InstanceFacts:
    """What an instance says of itself; None is what it did not say."""

    instance_id: str | None
    machine: str | None
    zone: str | None
    market: str | None


def instance_facts() -> InstanceFacts | None:
    """What this instance is; None if no metadata service answers here."""
    metadata = Metadata()
    paths = ("instance-id", "instance-type", "placement/availability-zone", "instance-life-cycle")
    try:
        return InstanceFacts(*map(metadata.read, paths))
    except _ERRORS:
        return None


class InstanceNotices(Notices):
    """Asks the metadata service. One that does not answer is asked again.

    Args:
        tell: called in the thread with each notice, once.
        rebalance: whether recommendations count as well.
    """

    INTERVAL_S = 2.0

    def __init__(self, tell: Callable[[Notice], None], *, rebalance: bool = False) -> None:
        super().__init__(tell)
        self._kinds = ("interruption", "rebalance") if rebalance else ("interruption",)
        self._metadata = Metadata()
        self._told: set[str] = set()

    def _look(self) -> None:
        for kind in self._kinds:
            text = self._read(kind)
            if text and text not in self._told:
                self._told.add(text)
                self._tell(_parsed(kind, text))

    def _read(self, kind: str) -> str | None:
        path = "spot/instance-action" if kind == "interruption" else "events/recommendations/rebalance"
        with contextlib.suppress(*_ERRORS):
            return self._metadata.read(path)
        return None


def _parsed(kind: str, text: str) -> Notice:
    try:
        told = json.loads(text)
        return Notice(kind, told.get("action", ""), _epoch_s(told.get("time") or told["noticeTime"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        # What is not understood stands there all the same because the instance goes.
        return Notice(kind, "", time.time() + NOTICE_S)


def _epoch_s(stamp: str) -> float:
    """Seconds since the epoch of a stamp in UTC, such as `2017-09-18T08:22:00Z`."""
    return float(calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")))
