"""`python -m runctl.agent`: read one order from standard input, carry out one attempt.

The order is a line of JSON (see `runctl.agent.order`). With `--warm-torchrun` the torchrun child is started
before the order comes, so that importing torch and composing the configuration overlap. The end of standard
input is the end of the launcher.
"""

from __future__ import annotations

import sys

from runctl import processes
from runctl.agent.inbox import Inbox
from runctl.agent.ranks import TorchrunRanks


def main() -> int:
    """Start what can be started ahead, wait for the order, and carry it out."""
    processes.adopt_orphans()
    warm = TorchrunRanks() if "--warm-torchrun" in sys.argv[1:] else None

    # Imported while torch is being imported next door.
    from runctl.agent.order import Order
    from runctl.agent.record import carry_out
    from runctl.errors import RunctlError

    inbox = Inbox(sys.stdin.fileno())
    line = inbox.read_order()
    if not line:
        processes.end_descendants()
        return 0
    try:
        return carry_out(Order.from_line(line), inbox, warm)
    except RunctlError as error:
        sys.stderr.write(f"runctl: {error}\n")
        processes.end_descendants()
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
