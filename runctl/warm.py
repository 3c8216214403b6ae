"""Hosts that wait for the next launch (`platform.keep_warm`): where they are written down, and taken from.

<run.root>/.warm/<host>.json    its handle, whose it is, since when it waits, and until when

Nothing here keeps a host alive or ends it: it shuts itself down when its time is over, whoever has forgotten it.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import time
from collections.abc import Callable

from runctl.cost import cost_usd
from runctl.encoding import from_data, to_data
from runctl.errors import StorageError
from runctl.platforms.base import Berth
from runctl.spec import RunHandle
from runctl.storage import open_store

_FOLDER = ".warm"
#: A host that is about to end is no host to begin on.
_MARGIN_S = 30.0


def take(root: str, platform: str, keep_s: float) -> Berth:
    """A berth with a host that waits below `root`, or an empty one.

    It is empty as well where that cannot be read: whoever may not is told by the launch's own checks, in their order.

    Args:
        root: where runs lie.
        platform: its kind.
        keep_s: how long a host is to wait there for whatever comes next.
    """
    berth = Berth(keep_s)
    with contextlib.suppress(StorageError):
        _take(root, platform, berth)
    return berth


def _take(root: str, platform: str, berth: Berth) -> None:
    store = open_store(root)
    for name in store.names(_FOLDER):
        data = store.read(f"{_FOLDER}/{name}")
        told = json.loads(data) if data is not None else None
        if told is None or (told["handle"]["platform"], told["owner"]) != (platform, getpass.getuser()):
            continue
        store.delete(f"{_FOLDER}/{name}")  # whoever reads it next finds nothing; what ends it is its own time
        if told["until"] > time.time() + _MARGIN_S:
            berth.host, berth.free_since = from_data(RunHandle, told["handle"]), told["free_since"]
            return


def leave(root: str, berth: Berth, tell: Callable[[str], None]) -> None:
    """Write down what waits in a berth, if anything does, and say what it costs.

    Args:
        root: where runs lie.
        berth: whose host is to wait for the next launch.
        tell: takes a line for the user.
    """
    if berth.host is None or berth.keep_s == 0:
        return
    where = berth.host.address
    until = berth.free_since + berth.keep_s
    waits = {"free_since": berth.free_since, "until": until}
    told = {"handle": to_data(berth.host), "owner": getpass.getuser(), **waits}
    clock = time.strftime("%H:%M:%S", time.localtime(until))
    most = cost_usd(where.get("price_usd_per_hour"), berth.keep_s)
    price = "at a price that is not known" if most is None else f"for {most:.4f} USD at most if nothing comes"
    try:
        open_store(root).write(f"{_FOLDER}/{where['instance']}.json", json.dumps(told).encode())
        tell(f"{where['instance']} waits for the next launch until {clock}, {price} (platform.keep_warm)")
    except StorageError as error:
        tell(f"{error}; {where['instance']} ends itself at {clock}")
