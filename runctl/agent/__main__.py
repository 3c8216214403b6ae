"""`python -m runctl.agent`: read one order, carry out one attempt.

The order is a line of JSON (see `runctl.agent.order`). It comes on standard input, whose end is the end of the
launcher; with `--warm-torchrun` the torchrun child is started before it comes, so that importing torch and composing
the configuration overlap. With `--order FILE` it stands in a file, and there is no launcher to lose.
"""

from __future__ import annotations

import sys
from pathlib import Path

from runctl import processes, streams
from runctl.agent.inbox import Inbox
from runctl.agent.ranks import TorchrunRanks


def main() -> int:
    """Start what can be started ahead, wait for the order, and carry it out."""
    streams.open_closed()
    words = sys.argv[1:]
    processes.adopt_orphans()
    warm = TorchrunRanks() if "--warm-torchrun" in words else None
    order = Path(words[words.index("--order") + 1]) if "--order" in words else None

    # Imported while torch is being imported next door.
    from runctl.agent.order import Order
    from runctl.agent.record import carry_out
    from runctl.errors import RunctlError

    if order is not None:
        inbox = Inbox(None)
        inbox.catch_signals()  # whoever ends the host has no other way to ask
        line = order.read_bytes()
    else:
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
