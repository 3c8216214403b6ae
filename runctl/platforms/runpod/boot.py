"""What a pod's container is started with: the image's own start, or a program that fetches the orders, never alone.

Beside it runs what ends the pod at its deadline. The shell that starts both stays the container's first process, for
that alone hears RunPod's SIGTERM: it leaves word of it in a file, which the agent looks for.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runctl import hosts
from runctl.platforms.parcel import ROOT_THERE

_HOSTS = Path(hosts.__file__).parent
#: How long a pod lives whose container was started again, and has lost what ran in it (seconds).
RESTARTED_S = 60.0
#: How much longer than its bring-up a pod waits for its keeper: its launcher counts from before the container's start,
#: and may have slept, or be another by now.
_SPARE_S = 300.0
#: `wait` ends when a signal comes, and the container must not. Whoever logs in may begin below the first root all the
#: same, and where that cannot be seen from here nobody is waited for.
_SCRIPT = """
root={root}
mkdir -p "$root" 2> /dev/null && test -w "$root" || {{ root=/tmp/runctl; mkdir -p "$root"; unset RUNCTL_COMES_S; }}
export RUNCTL_HOST_ROOT="$root"
trap 'touch "$root/notice"' TERM
(echo "$RUNCTL_BOOT" | base64 -d | python3 -) &
(
{start}
) &
first=$!
while :; do
  wait "$first"
  code=$?
  kill -0 "$first" 2> /dev/null || exit "$code"
done
"""
FETCH = 'echo "$RUNCTL_FETCH" | base64 -d | exec python3 -'


def with_boot(
    request: Mapping[str, Any], lives_s: float, start: str, more: Mapping[str, str] | None = None, *,
    bring_up_s: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A request for a pod whose container is started so.

    Args:
        request: without a start of its own.
        lives_s: how long the pod may live.
        start: what the container is for, in the shell's words.
        more: further variables of the container.
        bring_up_s: how long somebody may take to come and start a keeper in it; None if nobody need come.
    """
    variables = {
        "RUNCTL_START": _encoded(_SCRIPT.format(root=ROOT_THERE, start=start).encode()),
        "RUNCTL_BOOT": _encoded((_HOSTS / "runpod_boot.py").read_bytes()),
        "RUNCTL_LIVES_S": f"{lives_s:.0f}",
        "RUNCTL_RESTARTED_S": f"{RESTARTED_S:g}",
        **({"RUNCTL_COMES_S": f"{bring_up_s + _SPARE_S:.0f}"} if bring_up_s is not None else {}),
        **(more or {}),
    }
    arguments = request["arguments"]
    env = [*arguments["env"], *({"key": name, "value": value} for name, value in variables.items())]
    words = 'bash -c \'eval "$(echo "$RUNCTL_START" | base64 -d)"\''
    return {**request, "arguments": {**arguments, "dockerArgs": words, "env": env}}


def with_fetch(
    request: Mapping[str, Any], lives_s: float, bring_up_s: float, orders: str, store: Mapping[str, str]
) -> dict[str, Any]:
    """A request for a pod whose container fetches its orders from object storage.

    Args:
        request: without a start of its own.
        lives_s: how long the pod may live.
        bring_up_s: how long it waits for its orders.
        orders: their URL.
        store: variables that lead to the store, none of them secret.
    """
    more = {
        "RUNCTL_FETCH": _encoded((_HOSTS / "runpod_fetch.py").read_bytes()),
        "RUNCTL_ORDERS": orders,
        "RUNCTL_BRING_UP_S": f"{bring_up_s:.0f}",
        **store,
    }
    return with_boot(request, lives_s, FETCH, more)


def _encoded(text: bytes) -> str:
    """A variable's value in which no shell, template or form of anybody's finds anything to change."""
    return base64.b64encode(text).decode()
