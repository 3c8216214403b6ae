"""A question that a platform does not answer holds nobody up, not even at the end."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from runctl.errors import ConfigError, PlatformError
from runctl.platforms.asked import Asked

LEAVES = """
import time
from runctl.platforms.asked import Asked
unknown = []
assert Asked("AWS", "prices", lambda: time.sleep(60)).result(time.monotonic() + 0.1, unknown) is None
print(unknown)
"""


def test_a_process_does_not_wait_for_an_answer_at_its_end() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "['prices: AWS has not answered in time']\n"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("raised", [None, PlatformError("down"), ConfigError("no such type"), ValueError("a bug")])
def test_an_answer_is_taken_and_what_is_wrong_told_or_raised(raised: Exception | None) -> None:
    def ask() -> int:
        if raised is not None:
            raise raised
        return 7

    unknown: list[str] = []
    asked = Asked("AWS", "prices", ask)
    if isinstance(raised, (ConfigError, ValueError)):
        with pytest.raises(type(raised), match=str(raised)):
            asked.result(time.monotonic() + 10, unknown)
    else:
        assert asked.result(time.monotonic() + 10, unknown) == (7 if raised is None else None)
    assert unknown == (["down"] if isinstance(raised, PlatformError) and not isinstance(raised, ConfigError) else [])
