"""Solves and installs conda packages where there is no conda: a program of its own, under a Python that has rattler.

It reads {"tools", "channels", "packages", "prefix", "cache"} as JSON from standard input, and nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


async def install(order: dict[str, Any]) -> None:
    """Solve for this machine, and link what comes out into the prefix."""
    import rattler

    channels = [rattler.Channel(name) for name in order["channels"]]
    here = rattler.Subdir.current()
    found = await rattler.solve(
        channels,
        [rattler.MatchSpec(one) for one in order["packages"]],
        gateway=rattler.Gateway(cache_dir=f"{order['cache']}/repodata"),
        platforms=[here, rattler.Subdir("noarch")],
        virtual_packages=rattler.VirtualPackage.detect(),
    )
    for record in sorted(found, key=lambda one: str(one.name.normalized)):
        sys.stdout.write(f" + {record.name.normalized}={record.version}={record.build}\n")
    sys.stdout.flush()
    await rattler.install(found, order["prefix"], cache_dir=f"{order['cache']}/pkgs", show_progress=False)


def main() -> None:
    """Do it; what goes wrong is one line."""
    order = json.load(sys.stdin)
    if order["tools"]:
        sys.path.insert(0, order["tools"])
    try:
        asyncio.run(install(order))
    except Exception as error:  # noqa: BLE001 (whatever it is, it is the installer's to tell)
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
