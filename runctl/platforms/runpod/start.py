"""What a pod is brought before its agent can begin, over SSH: files, orders, and what starts the keeper.

/var/lib/runctl/.parcels/       projects and runctl, by their content: what is there is not sent again
/var/lib/runctl/<run>/a1/       one attempt: keeper, orders, `bin/shutdown`, secrets
/var/lib/runctl/.runs/<run>/    its run directory, where there is no object storage; or on a network volume
"""

from __future__ import annotations

import json
import posixpath
import shlex
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runctl import hosts
from runctl.checkpoint import manifest as manifests
from runctl.checkpoint import origin
from runctl.checkpoint.catalog import Catalog, Found
from runctl.checkpoint.remote import FOLDER
from runctl.checkpoint.transfer import readable
from runctl.encoding import dumps
from runctl.errors import ConfigError
from runctl.hosts.secrets import ENV, FILE, own_value
from runctl.platforms import local_data
from runctl.platforms.parcel import ROOT_THERE, Item, home
from runctl.platforms.runpod.files import PodFiles
from runctl.platforms.runpod.ssh import Connection
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, RunIdentity, Transfer

_START_S = 60.0
_UNPACK_S = 1800.0
#: What the container was started with: a session over SSH does not have it.
_BEGIN = """
import json, os, sys
home, env = sys.argv[1], dict(os.environ)
try:
    with open("/proc/1/environ", errors="surrogateescape") as file:
        first = dict(entry.split("=", 1) for entry in file.read().split(chr(0)) if "=" in entry)
except OSError:
    first = {}
if "RUNPOD_POD_ID" in first:
    env = {**env, **first}
for name in ("PUBLIC_KEY", "RUNCTL_BOOT", "RUNCTL_START"):
    env.pop(name, None)
with open(home + "/env.json") as file:
    env.update(json.load(file))
os.unlink(home + "/env.json")
env["PATH"] = home + "/bin:" + env["PATH"]
os.execvpe("python3", ["python3", home + "/keeper.py", "start", home], env)
"""
SHUTDOWN = '#!/bin/sh\nexec python3 "$(dirname "$0")/runpod.py" shutdown "$@"\n'
_HOSTS = Path(hosts.__file__).parent


@dataclass(frozen=True)
class Place:
    """Where an attempt's things lie on its pod.

    Attributes:
        root: for all that is runctl's.
        home: of the attempt.
        run_dir: the run directory, if it lies on the pod.
        started: whether its keeper was started before.
        kept: whether that keeper lives, or has said how it ended; not so where the container started again.
    """

    root: str
    home: str
    run_dir: str
    started: bool
    kept: bool


def run_dir(run_id: str, volume: str | None, root: str = hosts.ROOT) -> str:
    """Where a run directory lies on a pod that keeps it itself.

    Args:
        run_id: whose.
        volume: the mount path of a network volume, or None.
        root: for all that is runctl's there.
    """
    return f"{volume}/runctl/runs/{run_id}" if volume is not None else f"{root}/.runs/{run_id}"


def place(connection: Connection, run_id: str, attempt: int, volume: str | None) -> Place:
    """Look where things lie on a pod.

    Args:
        connection: to it.
        run_id, attempt: whose.
        volume: the mount path of a network volume, on which run directories lie then.

    Raises:
        SshError: if the connection broke.
    """
    told = connection.check(
        f"root={ROOT_THERE}; home={home(run_id, attempt)}; "
        'printf "%s\\n" "$root" "${RUNCTL_POD_VOLUME:-}"; test -e "$home/started" && echo started; '
        '{ test -e "$home/ended.json" || grep -q keeper.py "/proc/$(cat "$home/pid")/cmdline"; } 2> /dev/null && '
        "echo kept; true"
    ).split("\n")
    root, mounted = told[0], told[1] or volume
    there = run_dir(run_id, mounted if volume is not None else None, root)
    return Place(root, f"{root}/{run_id}/a{attempt}", there, "started" in told[2:], "kept" in told[2:])


class Bringing:
    """Brings one attempt to its pod.

    Args:
        connection: to the pod.
        at: where things lie there.
        tell: takes lines for the user.
    """

    def __init__(self, connection: Connection, at: Place, tell: Callable[[str], None]) -> None:
        self._connection = connection
        self._files = PodFiles(connection)
        self._at = at
        self._tell = tell

    def close(self) -> None:
        self._files.close()

    def files(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Send what is not there yet, by its content.

        Returns:
            What the keeper is told of it.
        """
        told = []
        for item in items:
            target = f"{self._at.root}/{item.key}"
            if self._files.size_of(target) != item.size_bytes:
                if item.size_bytes > 1 << 20:
                    self._tell(f"sending {item.name}: {readable(item.size_bytes)}")
                self._files.put(item.path, target)
            told.append({"name": item.name, "sha256": item.sha256, "size_bytes": item.size_bytes,
                         "unpack_to": item.unpack_to, "url": f"file://{target}"})  # fmt: skip
        return told

    def inputs(self, spec: LaunchSpec, workdir: Path) -> LaunchSpec:
        """Send the inputs of this machine, each as one archive, unless they are there.

        Args:
            spec: as composed.
            workdir: where relative paths are looked for.

        Returns:
            The spec with the places where they lie on the pod.

        Raises:
            ConfigError: for an input that is not there.
        """
        inputs = [
            one if "://" in one.source else Transfer(self._input(workdir / one.source), one.target)
            for one in spec.data.inputs
        ]
        return replace(spec, data=replace(spec.data, inputs=tuple(inputs)))

    def _input(self, source: Path) -> str:
        names, digest = local_data.described(source)
        target = f"{self._at.root}/.data/{digest}"
        if self._files.size_of(f"{target}/.complete") is None:
            self._tell(f"sending {source.name}: {local_data.told_size(names)}")
            # Thousands of files would each take several answers.
            with tempfile.TemporaryDirectory(prefix="runctl-data-") as aside:
                archive = Path(aside, "data.tar")
                with tarfile.open(archive, "w") as tar:
                    for path, name in names.items():
                        tar.add(path.resolve(), f"{source.name}/{name}".rstrip("/"))
                self._files.put(archive, f"{target}/.data.tar")
            quoted = shlex.quote(target)
            self._connection.check(
                f"cd {quoted} && tar -xf .data.tar && rm .data.tar && touch .complete", timeout_s=_UNPACK_S
            )
        return f"{target}/{source.name}"

    def secrets(self, references: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
        """Send the secrets of the launcher's environment, each in a file that the agent removes once it has read it.

        Returns:
            By variable, where the pod finds it.

        Raises:
            ConfigError: for a variable that is not set here, by its name alone.
        """
        found = {}
        for name, kept in references.items():
            target = f"{self._at.home}/secrets/{name}"
            self._files.put(value_of(name, kept, environ).encode(), target)
            found[name] = FILE + target
        return found

    def run_dir(self, spec: LaunchSpec, rundir: RunDir, attempt: int) -> None:
        """Send what an attempt needs of its run directory: the spec, earlier attempts, the newest checkpoint.

        Where the run has none yet, and begins from one of another run on this machine, it is that one.

        Raises:
            CheckpointError: if there are checkpoints here and none is usable.
        """
        at, here = self._at.run_dir, Path(rundir.url)
        for name in sorted(path.relative_to(here).as_posix() for path in here.glob("attempts/*.json")):
            if name.removeprefix("attempts/").removesuffix(".json").removesuffix(".rates").isdigit():
                self._files.put(here / name, posixpath.join(at, name))
        found = _to_begin_from(spec, Catalog(here / "checkpoints"), attempt, self._tell)
        if found is not None:
            self._checkpoint(found, f"{at}/{FOLDER}")
        if spec.checkpoint.origin is not None and "://" not in spec.checkpoint.origin:
            there = None
            if found is None:
                there = self._checkpoint(origin.here(spec.checkpoint.origin, self._tell), f"{self._at.home}/origin")
            spec = replace(spec, checkpoint=replace(spec.checkpoint, origin=there))
        self._files.put(dumps(spec).encode(), f"{at}/spec.json")

    def _checkpoint(self, found: Found, folder: str) -> str:
        """Send a checkpoint into a folder, its manifest last; where it lies there."""
        target = f"{folder}/{manifests.folder_name(found.manifest.step)}"
        if self._files.size_of(f"{target}/{manifests.NAME}") is not None:
            return target  # on a network volume, where it was written
        self._tell(f"sending the checkpoint of step {found.manifest.step}: {readable(found.manifest.size_bytes)}")
        for path in (*sorted(found.manifest.files), manifests.NAME):
            # What arrived before a line broke off was verified then.
            if self._files.size_of(f"{target}/{path}") != (found.path / path).stat().st_size:
                self._files.put(found.path / path, f"{target}/{path}")
        return target

    def begin(self, orders: dict[str, Any], env: Mapping[str, str], keeper: Item) -> None:
        """Put down what the keeper is to do, and start it; once it was started, nothing is started again.

        Args:
            orders: for the keeper.
            env: variables for it and all that it starts; they lie in a file until it has begun, and in no command.
            keeper: the program.
        """
        there = self._at.home
        self._files.put(_HOSTS / "runpod.py", f"{there}/bin/runpod.py")
        self._files.put(SHUTDOWN.encode(), f"{there}/bin/shutdown", mode=0o700)
        self._files.put(keeper.path, f"{there}/keeper.py")
        for name, data in (("host.json", orders), ("env.json", env)):
            self._files.put(json.dumps(data, ensure_ascii=False).encode(), f"{there}/{name}")
        self._connection.check(f"exec python3 -c {shlex.quote(_BEGIN)} {shlex.quote(there)}", timeout_s=_START_S)


def for_pod(spec: LaunchSpec, at: Place) -> LaunchSpec:
    """The spec as the agent of a pod reads it that keeps its run directory itself."""
    root = posixpath.dirname(at.run_dir)
    return replace(spec, run=RunIdentity(spec.run.id, spec.run.name, root))


def value_of(name: str, kept: str, environ: Mapping[str, str]) -> str:
    """The value of a secret of the launcher's environment.

    Raises:
        ConfigError: if it is not set, or kept where a pod cannot read it; by its name alone.
    """
    if not kept.startswith(ENV):
        raise ConfigError(
            f"secrets.{name}={kept}: a pod has no role on AWS that could read it; keep it in a variable here "
            f"(secrets.{name}=env:{name}), which goes to the pod over SSH"
        )
    return own_value(f"secrets.{name}={kept}", kept, environ)


def _to_begin_from(spec: LaunchSpec, catalog: Catalog, attempt: int, tell: Callable[[str], None]) -> Found | None:
    """The checkpoint here that an attempt begins from; those it does not begin from count no more."""
    resume = spec.checkpoint.resume
    if spec.checkpoint.url is not None:
        return None  # the agent finds them there
    if resume == "never":
        catalog.supersede(catalog.steps(), attempt)
        return None
    if resume.isdigit():
        step = int(resume)
        found = Found(catalog.path(step), catalog.verified(step))
        catalog.supersede([one for one in catalog.steps() if one > step], attempt)
        return found
    return catalog.newest(lambda error: tell(f"{error}; going back to the one before"))
