"""Pods apart from any launch: made by hand, listed, commanded over SSH, files to them and from them, ended."""

from __future__ import annotations

import contextlib
import getpass
import posixpath
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from runctl.errors import ConfigError, PlatformError
from runctl.platforms import parcel
from runctl.platforms.hosts import BY_HAND, Host, Hosts, Ran, folder, new_name, not_ours, note, noted, program, spec_of
from runctl.platforms.planned import planned
from runctl.platforms.runpod import boot, market, requests
from runctl.platforms.runpod.api import Api
from runctl.platforms.runpod.files import PodFiles
from runctl.platforms.runpod.keys import RENTED_FOR, KeyPair, PinnedHost, of_attempt, place_of
from runctl.platforms.runpod.options import RunpodOptions, Transport
from runctl.platforms.runpod.pods import Pod, Pods
from runctl.platforms.runpod.purchase import Purchase
from runctl.platforms.runpod.ssh import PRINTED_BYTES, Address, Connection, SshError
from runctl.registry import Registry
from runctl.rundir import RunDir
from runctl.spec import Limits, Quote, Resources, RunHandle

_LOOK_S = 3.0
_END_S = 20.0


class RunpodHosts(Hosts):
    """The account's pods that are ours.

    Args:
        api: RunPod's.
        options: the platform's.
        tell: takes lines for the user.
    """

    def __init__(self, api: Api, options: RunpodOptions, tell: Callable[[str], None]) -> None:
        self._api = api
        self._pods = Pods(api)
        self._options = options
        self._tell = tell

    def living(self) -> list[Host]:
        self._api.require_key()
        return sorted(map(_host, self._pods.ours()), key=lambda host: host.launched_at)

    def create(self, resources: Resources, lives_s: float) -> Host:
        if self._options.transport is not Transport.ssh:
            raise ConfigError(
                f"platform.transport={self._options.transport.value}: a pod made by hand is reached over SSH; "
                "platform.transport=ssh"
            )
        self._api.require_key()
        found = market.look(self._options, self._api, resources)
        spec = replace(spec_of(new_name(), resources), limits=Limits(max_time_s=lives_s))
        facts = {"gpu_count": found.gpu_count, "bids": found.bids, "volume": found.volume}
        asked = [
            boot.with_boot(
                {**requests.rent(spec, self._options, BY_HAND, offer, facts), "offer": number, "lives_s": lives_s},
                lives_s, self._options.start,
            )
            for number, offer in enumerate(found.offers)
        ]  # fmt: skip
        plan = replace(
            planned(spec, Quote(found.offers, None, {}, found.unknown), BY_HAND, "runpod"),
            requests=tuple(asked),
            notes=tuple(requests.UNKNOWN + one for one in found.unknown),
        )
        pair = of_attempt(_home(spec.run.id).url, BY_HAND)
        try:
            where = Purchase(self._api, self._tell).make(plan, {requests.PUBLIC_KEY: pair.public}).address
        except BaseException:
            pair.remove()
            raise
        ends_at = where["launched_at"] + lives_s
        note(
            where["instance"], platform="runpod", name=spec.run.id, machine=where["machine"], cloud=where["cloud"],
            launched_at=where["launched_at"], ends_at=ends_at,
        )  # fmt: skip
        return Host(
            "runpod", where["instance"], "RUNNING", spec.run.id, BY_HAND, getpass.getuser(), where["machine"],
            where["market"], where["cloud"], where["zone"] or "", where["price_usd_per_hour"], where["launched_at"],
            ends_at,
        )  # fmt: skip

    def get(self, host_id: str) -> Host:
        self._api.require_key()
        pod = self._pods.get(host_id)
        if not pod.alive or pod.made_for is None:
            raise not_ours(host_id, "this RunPod account")
        return _host(pod)

    def run(self, host_id: str, command: str, timeout_s: float) -> Ran:
        with self.connected(self.get(host_id)) as connection:
            done = connection.run(command, timeout_s=timeout_s)
        if done.cut:
            self._tell(f"it printed more than {PRINTED_BYTES >> 10} KiB, of which this is the end")
        return Ran(done.exit_code if done.exit_code >= 0 else 128, done.stdout, done.stderr)

    def shell(self, host_id: str, folder: str) -> list[str]:
        host = self.get(host_id)
        ssh = program("ssh", "apt install openssh-client, or runctl runpod exec for single commands")
        with self.connected(host) as connection:  # by which the pod's own key is pinned, if it was not
            address = connection.address
        pair, pinned = self.access(host)
        known = pair.path.with_suffix(".known_hosts")
        known.write_text(f"[{address.host}]:{address.port} {pinned.read()}\n")
        begin = f'cd {parcel.ROOT_THERE}/{folder} 2> /dev/null; exec "${{SHELL:-sh}}" -l'
        return [
            ssh, "-t", "-i", str(pair.path), "-p", str(address.port), "-o", "IdentitiesOnly=yes",
            "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", f"{address.user}@{address.host}",
            begin,
        ]  # fmt: skip

    def terminate(self, host_id: str) -> Host:
        self._api.require_key()
        pod = self._pods.get(host_id)
        if not pod.costs or pod.made_for is None:
            raise not_ours(host_id, "this RunPod account")
        host = _host(pod)
        self._pods.terminate(host.id)
        if host.by_hand:
            of_attempt(_home(host.run).url, BY_HAND).remove()
            shutil.rmtree(folder(host.run), ignore_errors=True)
        return host

    def upload(self, host_id: str, path: Path, target: str) -> int:
        """Send a file, or a folder with all that is in it; how many files that were.

        Args:
            host_id: the pod's.
            path: here.
            target: there; relative to the folder in which a session begins.

        Raises:
            ConfigError: if there is nothing.
            RunctlError: if it cannot be sent.
        """
        if not path.exists():
            raise ConfigError(f"{path}: there is nothing to be sent")
        inside = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        with self.connected(self.get(host_id)) as connection, contextlib.closing(PodFiles(connection)) as files:
            top = _absolute(connection, target)
            into = top if path.is_dir() or not target.endswith("/") else f"{top}/{path.name}"
            for one in inside:
                there = posixpath.join(into, one.relative_to(path).as_posix()) if path.is_dir() else into
                files.put(one, there, mode=one.stat().st_mode & 0o755)
        return len(inside)

    def download(self, host_id: str, source: str, path: Path) -> int:
        """Bring a file, or a folder with all that is in it; how many files that were.

        Args:
            host_id: the pod's.
            source: there; relative to the folder in which a session begins.
            path: here; a folder that is there, or one that `source` is, takes it in.

        Raises:
            ConfigError: if there is nothing.
            RunctlError: if it cannot be brought.
        """
        with self.connected(self.get(host_id)) as connection, contextlib.closing(PodFiles(connection)) as files:
            top = _absolute(connection, source)
            quoted = shlex.quote(top)
            told = connection.stream(
                f"test -e {quoted} || exit 0; cd {quoted} 2> /dev/null && find . -type f -print0 || "
                f"printf '%s\\0' {quoted}"
            )
            found = b"".join(told).decode(errors="replace").split("\0")[:-1]
            if not found:
                raise ConfigError(f"{source}: there is nothing on {host_id}")
            for name in found:
                if name == top:
                    files.get(name, path / posixpath.basename(name) if path.is_dir() else path)
                else:
                    files.get(posixpath.join(top, name), path / name)
        return len(found)

    def access(self, host: Host) -> tuple[KeyPair, PinnedHost]:
        """The keys by which this machine and a pod know each other.

        Raises:
            ConfigError: if they are another machine's.
        """
        if host.by_hand:
            rundir = _home(host.run)
        else:
            known = Registry().named(host.run)
            if not known:
                raise ConfigError(f"{host.id}: its run {host.run} is not known here; runctl reindex finds it")
            rundir = RunDir(known[0].url)
        if not place_of(rundir.url, host.attempt).exists():
            raise ConfigError(f"{host.id}: its key lies on the machine from which it was rented, and not here")
        return of_attempt(rundir.url, host.attempt), PinnedHost(rundir, host.attempt)

    @contextlib.contextmanager
    def connected(self, host: Host) -> Iterator[Connection]:
        """SSH to a pod, once it answers: it may only just come up.

        Raises:
            PlatformError: if it does not come up in time.
        """
        pair, pinned = self.access(host)
        until = time.monotonic() + self._options.bring_up_s
        while True:
            try:
                connection = Connection(self._address(host), pair, pinned)
                break
            except SshError as error:
                if time.monotonic() > until:
                    raise PlatformError(f"{host.id}: it does not come up: {error}") from error
                time.sleep(_LOOK_S)
        with connection:
            yield connection

    def _address(self, host: Host) -> Address:
        address = self._pods.get(host.id).ssh
        if address is None:
            raise SshError("it does not tell the address of its SSH yet")
        return address


def of_handle(handle: RunHandle) -> tuple[KeyPair, PinnedHost]:
    """The keys of an attempt's pod: those that were made when it was rented, for whatever run or by hand."""
    name = handle.address.get("host_name")
    url, number = handle.address[RENTED_FOR] if name is None else (_home(name).url, BY_HAND)
    return of_attempt(url, number), PinnedHost(RunDir(url), number)


def is_open(handle: RunHandle) -> bool:
    """Whether the key of an attempt's pod lies on this machine."""
    url, number = handle.address[RENTED_FOR]
    return place_of(url, number).exists()


def end_attempt(pods: Pods, handle: RunHandle, tell: Callable[[str], None]) -> bool:
    """See to it that nothing of an attempt goes on where the pod stays; one that has ended is left as it is.

    Returns:
        Whether it is known that no other attempt has the pod.
    """
    pod = pods.get(handle.address["instance"])
    if not pod.alive:
        return True
    if pod.ssh is None:
        return False
    pair, pinned = of_handle(handle)
    try:
        with Connection(pod.ssh, pair, pinned) as connection:
            done = connection.run(parcel.ending(handle.run_id, handle.attempt), timeout_s=_END_S)
        return done.exit_code == parcel.IDLE
    except PlatformError as error:
        tell(f"{error}; what is left of attempt {handle.attempt} on {pod.id} ends with it")
        return False


def _home(name: str) -> RunDir:
    """Where the keys of a pod that was made by hand are kept, as those of others are in their run directories."""
    return RunDir(str(folder(name)))


def _absolute(connection: Connection, path: str) -> str:
    """A path on the pod; a relative one is looked for where a session begins."""
    if path.startswith("/"):
        return posixpath.normpath(path)
    return posixpath.normpath(posixpath.join(connection.check("pwd").strip(), path.removeprefix("~/")))


def _host(pod: Pod) -> Host:
    told = noted(pod.id)
    return Host(
        "runpod", pod.id, pod.state, *(pod.made_for or ("", -1)), "",
        str(told.get("machine") or pod.gpu), pod.market, str(told.get("cloud") or ""), "", pod.price_usd_per_hour,
        float(told.get("launched_at") or time.time() - pod.uptime_s), told.get("ends_at"),
    )  # fmt: skip
