"""What a rented host is sent: the user's project, runctl itself, the keeper, and what the keeper is to do.

Where the agent runs in a container, also the interpreter that is one.

<run.root>/.parcels/<sha256>.tar.gz     projects, by their content: an unchanged one is sent once; that interpreter
<run.root>/.parcels/<sha256>.whl        runctl
<run.root>/.parcels/<sha256>.py         the keeper
<run directory>/hosts/a1.json           what the keeper of attempt 1 is to do
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runctl import bundle, hosts, processes
from runctl.checkpoint.transfer import readable
from runctl.digests import sha256_of
from runctl.hosts.keeper import MORE
from runctl.platforms import containers
from runctl.rundir import run_url
from runctl.spec import LaunchSpec, RunHandle
from runctl.storage import open_store

FOLDER = ".parcels"
#: The root of all that is ours on a host, in the words of its shell.
ROOT_THERE = f'"${{RUNCTL_HOST_ROOT:-{hosts.ROOT}}}"'
#: How the command ends that ends an attempt where no other attempt has the host.
IDLE = 0
_PREFIX = "runctl-parcel-"


@dataclass(frozen=True)
class Item:
    """One file of a parcel.

    Attributes:
        path: here.
        sha256: of its content, in hex.
        name: what it is called on the host.
        unpack_to: the folder into which the host unpacks it, or None.
    """

    path: Path
    sha256: str
    name: str
    unpack_to: str | None = None

    @property
    def key(self) -> str:
        """Where it lies below the root of runs."""
        suffix = "".join(Path(self.name).suffixes[-2:]) if self.name.endswith(".tar.gz") else Path(self.name).suffix
        return f"{FOLDER}/{self.sha256}{suffix}"

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size


class Parcel:
    """The files for one launch, made in a temporary folder of its own.

    Args:
        project_dir: the user's project.
        max_bytes: how large its files may be together.
        container: whether the agent runs in a container.
    """

    def __init__(self, project_dir: Path, max_bytes: int, *, container: bool = False) -> None:
        _remove_left_behind()
        self._folder = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")
        folder = Path(self._folder.name)
        packed = bundle.pack(project_dir, folder, max_bytes=max_bytes)
        wheel = bundle.wheel(folder)
        programs = Path(hosts.__file__).parent
        keeper = programs / "keeper.py"
        self.project = Item(packed.path, packed.sha256, "project.tar.gz", "project")
        self.runctl = Item(wheel, sha256_of(wheel), wheel.name)
        self.keeper = Item(keeper, sha256_of(keeper), "keeper.py")
        self._more: tuple[Item, ...] = ()
        if container:
            python = bundle.program(programs / "docker-python.sh", containers.PROGRAM, folder)
            self._more = (Item(python, sha256_of(python), python.name, containers.FOLDER),)

    @property
    def items(self) -> tuple[Item, ...]:
        return self.project, self.runctl, *self._more, self.keeper

    def send(self, root: str, tell: Callable[[str], None]) -> None:
        """Put what is not there yet below the root of runs.

        Raises:
            StorageError: if that fails.
        """
        store = open_store(root)
        there = store.names(FOLDER)
        for item in self.items:
            if Path(item.key).name in there:
                continue
            if item is self.project and item.size_bytes > 1 << 20:
                tell(f"sending the project: {readable(item.size_bytes)}")
            store.put_file(item.path, item.key)


def orders(
    spec: LaunchSpec, attempt: int, platform: str, *, python: str | None, setup: tuple[str, ...], notices: str,
    bring_up_s: float, keep_on_failure_s: float, keep_warm_s: float, lives_s: float, stays: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """What a keeper is to do, but for what is known only once there is a host: files, secrets, times, prices.

    Args:
        spec: what is to run.
        attempt: its number.
        platform: its kind.
        python: the ranks' interpreter.
        setup: lines for the host's shell.
        notices: who tells that the host is about to be taken away.
        bring_up_s: how long it may be prepared.
        keep_on_failure_s: how long it stays after a failure.
        keep_warm_s: how long it waits for the next run.
        lives_s: how long it may live altogether.
        stays: whether it stays all that time, however the attempt ends, and for no attempt in particular.
    """
    about = containers.orders(spec, attempt, setup)
    if spec.notify:
        about["env"][MORE] = " ".join(bundle.extra("notify"))
    return {
        "run_id": spec.run.id,
        "attempt": attempt,
        **about,
        "bring_up_s": bring_up_s,
        "keep_on_failure_s": 0.0 if stays else keep_on_failure_s,
        "keep_warm_s": keep_warm_s,
        "keep_s": lives_s if stays else 0.0,
        "lives_s": lives_s,
        "unit": f"runctl-{spec.run.id}-a{attempt}",
        "order": {
            "run_dir": run_url(spec.run.root, spec.run.id),
            "attempt": attempt,
            "platform": platform,
            "attached": False,
            "notices": notices,
            "python": python,
        },
    }


def completed(orders: dict[str, Any], handle: RunHandle) -> dict[str, Any]:
    """Orders with what is known of the host: until when it may live, and what it costs since when."""
    where = handle.address
    told = {key: value for key, value in orders.items() if key != "lives_s"}
    deadline = where["launched_at"] + orders["lives_s"]
    return {
        **told,
        "deadline": deadline,
        "order": {
            **orders["order"],
            "deadline": deadline,
            "market": where["market"],
            "price_usd_per_hour": where["price_usd_per_hour"],
            "billed_from": where.get("billed_from", where["launched_at"]),
        },
    }


def orders_name(attempt: int) -> str:
    """Where the orders of an attempt's keeper lie below the run directory."""
    return f"hosts/a{attempt}.json"


def write_orders(run_dir: str, attempt: int, orders: dict[str, Any]) -> tuple[str, str]:
    """Put down what a keeper is to do.

    Returns:
        Where, below the run directory, and the SHA-256 of it.
    """
    data = json.dumps(orders, ensure_ascii=False).encode()
    name = orders_name(attempt)
    open_store(run_dir).write(name, data)
    return name, hashlib.sha256(data).hexdigest()


def home(run_id: str, attempt: int) -> str:
    """Where all that is an attempt's lies on its host, in the words of its shell."""
    return f"{ROOT_THERE}/{shlex.quote(run_id)}/a{attempt}"


def ending(run_id: str, attempt: int) -> str:
    """The command that ends an attempt, also one that is yet to begin there; its code is IDLE where the host is free.

    Where not even its keeper has come, nobody can tell.
    """
    return (
        f'home={home(run_id, attempt)}; mkdir -p -m 700 "$home" && cd "$home" || exit 1; '
        'test -e keeper.py && exec python3 keeper.py end "$home"; '
        'test -e ended.json || echo \'{"why": "it was given up"}\' > ended.json; exit 1'
    )


def _remove_left_behind() -> None:
    """Remove the folders of launchers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not processes.lives(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
