"""What an instance learns of itself: IMDSv2, with its token, its role's keys and what AWS is about to do to it."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timezone

from runctl.drill.sandboxes import Sandbox

#: The keys of the launcher and of an instance's role: ACCOUNT:USER, as Swift has them; moto takes any.
LAUNCHER, HOST, SECRET = "drill:launcher", "drill:host", "drill"
#: The role that every instance has where no rights are checked.
ROLE = "runctl"
_KEYS_S = 6 * 3600


@dataclass(frozen=True)
class Facts:
    """What does not change while an instance lives; `keys` are its role's name and access key, if it has one."""

    id: str
    machine: str
    zone: str
    market: str
    keys: tuple[str, str] | None = (ROLE, HOST)


class Metadata:
    """Answers `/latest/…` for one instance."""

    def __init__(self, facts: Facts, sandbox: Sandbox) -> None:
        self._facts = facts
        self._sandbox = sandbox
        self._tokens: set[str] = set()

    def answer(self, method: str, path: str, token: str) -> tuple[int, bytes]:
        """Status and body.

        Args:
            method: PUT for a token, GET for everything else.
            path: from `latest/` on.
            token: of the header; without one there is no answer (IMDSv2 alone).
        """
        if path == "latest/api/token":
            if method != "PUT":
                return 405, b""
            token = secrets.token_urlsafe(24)
            self._tokens.add(token)
            return 200, token.encode()
        if token not in self._tokens:
            return 401, b""
        text = self._value(path.removeprefix("latest/").rstrip("/"))
        return (404, b"") if text is None else (200, text.encode())

    def _value(self, path: str) -> str | None:
        facts, sandbox = self._facts, self._sandbox
        fixed = {
            "meta-data/instance-id": facts.id,
            "meta-data/instance-type": facts.machine,
            "meta-data/instance-life-cycle": "spot" if facts.market == "spot" else "on-demand",
            "meta-data/placement/availability-zone": facts.zone,
            "meta-data/placement/region": facts.zone[:-1],
        }
        if facts.keys is not None:
            fixed["meta-data/iam/security-credentials"] = facts.keys[0]
        if path in fixed:
            return fixed[path]
        if path == "meta-data/spot/instance-action" and sandbox.interrupted_at is not None:
            return json.dumps({"action": "terminate", "time": _iso(sandbox.interrupted_at)})
        if path == "meta-data/events/recommendations/rebalance" and sandbox.rebalance_at is not None:
            return json.dumps({"noticeTime": _iso(sandbox.rebalance_at)})
        if facts.keys is not None and path == f"meta-data/iam/security-credentials/{facts.keys[0]}":
            return json.dumps(
                {
                    "Code": "Success",
                    "Type": "AWS-HMAC",
                    "LastUpdated": _iso(time.time()),
                    "AccessKeyId": facts.keys[1],
                    "SecretAccessKey": SECRET,
                    "Token": "drill",
                    "Expiration": _iso(time.time() + _KEYS_S),
                }
            )
        if path == "dynamic/instance-identity/document":
            return json.dumps({"instanceId": facts.id, "region": facts.zone[:-1], "instanceType": facts.machine})
        return None


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
