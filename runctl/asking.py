"""Questions to whoever sits at the terminal, asked and answered while a run goes on."""

from __future__ import annotations

import select
import sys


def can_ask() -> bool:
    """Whether there is a terminal with somebody before it."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def ask(text: str) -> None:
    """Show a question; `answer` tells what came of it."""
    sys.stderr.write(f"runctl: {text} ")
    sys.stderr.flush()


def answer() -> str | None:
    """The line that was typed, stripped and in lower case, or None if none was yet."""
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return sys.stdin.readline().strip().lower() if ready else None


def agree(text: str) -> bool:
    """Say something that costs money and wait for a yes; where nobody can be asked, it is said and done."""
    if not can_ask():
        sys.stderr.write(f"runctl: {text}\n")
        return True
    ask(f"{text}. Enter goes on, n waits longer:")
    return not sys.stdin.readline().strip().lower().startswith("n")
