"""What every loopback cloud is steered by from the process that holds it: faults, the record of calls, questions."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from runctl.drill.faults import Fault
from runctl.encoding import dumps

#: A proxy of the user's knows no way to this machine's loopback.
_HERE = "127.0.0.1,localhost"


def without_proxy(base: Mapping[str, str]) -> dict[str, str]:
    """Variables by which whatever goes to loopback goes there, and the rest where it went in `base`."""
    theirs = base.get("no_proxy") or base.get("NO_PROXY")
    return dict.fromkeys(("no_proxy", "NO_PROXY"), f"{theirs},{_HERE}" if theirs else _HERE)


def answer_of(request: urllib.request.Request) -> bytes:
    """What a cloud on loopback answers.

    Raises:
        OSError: if it does not, or refuses.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        data: bytes = answer.read()
        return data


class Steered:
    """A cloud that answers at a URL.

    Attributes:
        url: of its server, without a slash at the end.
    """

    url = ""

    def inject(self, fault: Fault) -> None:
        """Have later calls meet a fault."""
        self._ask("inject", dumps(fault).encode())

    def clear(self) -> None:
        """Forget all faults that nobody has met."""
        self._ask("clear")

    def calls(self) -> list[dict[str, Any]]:
        """Every API call so far."""
        told: list[dict[str, Any]] = self._ask("calls")
        return told

    def _ask(self, what: str, body: bytes = b"", **asked: object) -> Any:
        query = urllib.parse.urlencode({key: str(value) for key, value in asked.items()})
        return json.loads(answer_of(urllib.request.Request(f"{self.url}/-/{what}?{query}", body)))
