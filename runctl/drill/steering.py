"""What every loopback cloud is steered by from the process that holds it: faults, the record of calls, questions."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

from runctl.drill.faults import Fault
from runctl.encoding import dumps


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
        request = urllib.request.Request(f"{self.url}/-/{what}?{query}", body)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())
