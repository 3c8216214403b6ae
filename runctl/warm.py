"""Hosts that wait for the next run: where they are written down, and taken from.

<run.root>/.warm/<host>-<since>.json    one wait: whose host, since when, until when; gone once a run has taken it

Those of a sweep wait for its own jobs: the same command, given again after its launcher was killed, goes on with them.
With `platform.keep_warm` they wait for whatever launch comes next.

Nothing here keeps a host alive or ends it: it shuts itself down when its time is over, whoever has forgotten it. A wait
for which nobody came stays written down, for it has cost something, and no run's bill holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runctl.config.files import state_home
from runctl.cost import Bill, cost_usd
from runctl.encoding import dumps, from_data
from runctl.errors import StorageError
from runctl.platforms.base import Berth
from runctl.registry import Registry
from runctl.spec import RunHandle
from runctl.storage import Store, open_store

_FOLDER = ".warm"
#: A host that is about to end is no host to begin on.
_MARGIN_S = 30.0
#: For so long a wait is remembered for which nobody came.
_REMEMBERED_S = 90 * 24 * 3600.0


@dataclass(frozen=True)
class Wait:
    """A host that waits for the next run, or has waited for none.

    Attributes:
        handle: of the attempt after which it waits.
        owner: whose it is.
        free_since, until: seconds since the epoch; it may have been taken away before.
        only_for: the sweep or the run whose own it is; None where it waits for whatever comes.
    """

    handle: RunHandle
    owner: str
    free_since: float
    until: float
    only_for: str | None = None

    @property
    def host(self) -> str:
        """The platform's id of it."""
        return str(self.handle.address["instance"])

    def bill(self, now: float) -> Bill:
        """What the wait costs until now, without disks: nobody asks its platform for them."""
        where, end = self.handle.address, min(now, self.until)
        price = where.get("price_usd_per_hour")
        billed_s = max(0.0, end - self.free_since)
        usd = cost_usd(price, billed_s)
        return Bill(
            0, self.handle.platform, where["market"], where["machine"], "waiting" if self.until > now else "waited",
            self.free_since, None if self.until > now else end, billed_s, price, usd, 0.0,
            usd, saved_usd=0.0, lost_usd=0.0, estimate_usd=cost_usd(price, self.until - self.free_since),
        )  # fmt: skip


class Waiting:
    """The hosts of one platform that wait below a root.

    Args:
        root: where runs lie.
        platform: its kind.
        name: of the sweep or the run that asks: what waits for it alone is there for it too.
    """

    def __init__(self, root: str, platform: str, name: str) -> None:
        self._root = root
        self._platform = platform
        self._name = name
        self._ours: set[str] = set()
        self._written: set[str] = set()

    def take(self, serves: Callable[[RunHandle], bool]) -> tuple[RunHandle, float] | None:
        """One of this user's that serves, and since when it waits; None as well where that cannot be read.

        Args:
            serves: whether a host, by the handle of its last attempt, is what is wanted.
        """
        with contextlib.suppress(StorageError), _alone():
            store, now = open_store(self._root), time.time()
            for name, one in _written(store):
                if one.until < now - _REMEMBERED_S:
                    store.delete(name)
                mine = (one.handle.platform, one.owner) == (self._platform, getpass.getuser())
                for_us = one.only_for in (None, self._name) and name not in self._ours
                if mine and for_us and one.until > now + _MARGIN_S and serves(one.handle):
                    store.delete(name)
                    return one.handle, one.free_since
        return None

    def put(self, host: RunHandle, free_since: float, until: float) -> None:
        """A host waits for the next run of the same name; or has waited, for nobody."""
        self._ours.add(_name_of(host, free_since))  # another place of the same launch is not to take it
        with contextlib.suppress(StorageError):
            _write(self._root, Wait(host, getpass.getuser(), free_since, until, self._name))
            self._written.add(_name_of(host, free_since))

    def drop(self, host: RunHandle, free_since: float) -> bool:
        """It waits no more.

        Returns:
            Whether it was still there for this launch: another one of the same name may have taken it. What could not
            be written down, or cannot be read, nobody else can have taken.
        """
        name = _name_of(host, free_since)
        with contextlib.suppress(StorageError), _alone():
            store = open_store(self._root)
            if name in self._written and store.read(name) is None:
                return False
            store.delete(name)
        return True


def leave(root: str, berth: Berth, tell: Callable[[str], None]) -> None:
    """Have what waits in a berth wait for whatever launch comes next, and say what that costs.

    Args:
        root: where runs lie.
        berth: whose host it is.
        tell: takes a line for the user.
    """
    host, until = berth.host, berth.until
    if host is None or not berth.shelf.drop(host, berth.free_since):
        return
    wait = Wait(host, getpass.getuser(), berth.free_since, until)
    clock = time.strftime("%H:%M:%S", time.localtime(until))
    most = wait.bill(until).usd
    price = "at a price that is not known" if most is None else f"for {most:.4f} USD at most if nothing comes"
    try:
        _write(root, wait)
        tell(f"{wait.host} waits for the next launch until {clock}, {price} (platform.keep_warm)")
    except StorageError as error:
        tell(f"{error}; {wait.host} ends itself at {clock}")


def waits(root: str, since: float) -> list[Wait]:
    """This user's waits below a root that went on after `since` (seconds since the epoch).

    Raises:
        StorageError: if they cannot be read.
    """
    mine = getpass.getuser()
    return [one for _, one in _written(open_store(root)) if one.owner == mine and one.until > since]


def _written(store: Store) -> Iterator[tuple[str, Wait]]:
    """Every wait that is written down, but for what another version has written: its hosts end themselves too."""
    for name in store.names(_FOLDER):
        told = store.read_json(f"{_FOLDER}/{name}")
        if told is not None:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                yield f"{_FOLDER}/{name}", from_data(Wait, told)


def _write(root: str, wait: Wait) -> None:
    store = open_store(root)
    store.write(_name_of(wait.handle, wait.free_since), dumps(wait).encode())
    Registry().note_wait(store.url, wait.until)


def _name_of(host: RunHandle, free_since: float) -> str:
    return f"{_FOLDER}/{host.address['instance']}-{free_since:.0f}.json"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold off other launches of this machine: of two, one gets the host."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # where it cannot be locked, the host itself has one run after the other
            state_home().mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = held.enter_context((state_home() / "warm.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
