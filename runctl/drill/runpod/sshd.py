"""OpenSSH's server: the system's, or else unpacked from the system's own packages into a folder; root is not needed.

    python -m runctl.drill.runpod.sshd DIR

makes that folder ahead of time. Debian and Ubuntu only: elsewhere the system's own server must be installed.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runctl.errors import PlatformError

_SYSTEM = "/usr/sbin/sshd"
#: Where `make test` puts it.
_MADE_AHEAD = Path(sys.prefix, "sshd")
_SFTP_SERVERS = ("usr/lib/openssh/sftp-server", "usr/libexec/openssh/sftp-server", "usr/libexec/sftp-server")
#: The server, the library that it lacks most often, and one that shows it a list of users of our own.
_PACKAGES = ("openssh-server", "openssh-sftp-server", "libwrap0", "libnss-wrapper")
_NSS_WRAPPER = "libnss_wrapper.so"
_FETCH_S = 120.0
_INSTALL = "install OpenSSH's server (apt install openssh-server, dnf install openssh-server)"
#: Debian's server keeps its unprivileged part in here, and does not start as root without it.
_EMPTY = Path("/run/sshd")


@dataclass(frozen=True)
class Sshd:
    """A server that can be started.

    Attributes:
        binary: its absolute path: it starts itself anew for each connection.
        sftp_server: of SFTP.
        libraries: where its libraries lie, besides the system's places.
        nss_wrapper: a library for LD_PRELOAD under which the users are those of a file; None without.
    """

    binary: Path
    sftp_server: str
    libraries: tuple[Path, ...] = ()
    nss_wrapper: Path | None = None

    @property
    def user(self) -> str:
        """Whom to log in as."""
        return "root" if self.nss_wrapper is not None or os.geteuid() == 0 else getpass.getuser()

    def variables(self, users: Path) -> dict[str, str]:
        """What the server's environment needs.

        Args:
            users: a folder with `passwd` and `group`.
        """
        told = {"LD_LIBRARY_PATH": ":".join(map(str, self.libraries))} if self.libraries else {}
        if self.nss_wrapper is not None:
            told["LD_PRELOAD"] = str(self.nss_wrapper)
            told["NSS_WRAPPER_PASSWD"] = str(users / "passwd")
            told["NSS_WRAPPER_GROUP"] = str(users / "group")
        return told


def ready() -> Sshd:
    """The server, fetched if need be.

    Raises:
        PlatformError: if there is none and none can be had, saying what to install.
    """
    if os.geteuid() == 0:
        try:
            _EMPTY.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise PlatformError(f"the drill's pods: {_EMPTY}: {error.strerror}; sshd needs that folder") from error
    if Path(_SYSTEM).exists():
        return _in(Path("/"), ())
    if _MADE_AHEAD.is_dir():
        return fetched(_MADE_AHEAD)
    return fetched(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "runctl", "sshd"))


def fetched(folder: Path) -> Sshd:
    """The server out of the system's packages, unpacked into a folder once.

    Raises:
        PlatformError: if that is impossible here.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        missing = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
        if missing:
            raise PlatformError(f"the drill's pods need sshd, and there is neither one nor {missing[0]}; {_INSTALL}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-sshd-", dir=folder.parent) as aside:
            unpacked = Path(aside, "root")
            _unpack(Path(aside), unpacked)
            try:
                unpacked.rename(folder)
            except OSError as error:
                if not folder.is_dir():  # somebody made it meanwhile
                    raise PlatformError(f"{folder}: {error.strerror}; {_INSTALL}") from error
    libraries = sorted({path.parent for path in folder.rglob("*.so*")})
    return _in(folder, tuple(libraries))


def _in(root: Path, libraries: tuple[Path, ...]) -> Sshd:
    sftp_server = next((str(root / name) for name in _SFTP_SERVERS if (root / name).exists()), None)
    if sftp_server is None:
        raise PlatformError(f"the drill's pods: there is sshd in {root}, but no sftp-server; {_INSTALL}")
    wrapper = next((path / _NSS_WRAPPER for path in libraries if (path / _NSS_WRAPPER).exists()), None)
    return Sshd(root / "usr/sbin/sshd", sftp_server, libraries, wrapper)


def _unpack(aside: Path, root: Path) -> None:
    """Download the packages and unpack them; with lists of our own if the system has none."""
    try:
        _run(["apt-get", "download", *_PACKAGES], aside)
    except PlatformError:
        lists = aside / "apt"
        for name in ("lists/partial", "cache/archives/partial"):
            (lists / name).mkdir(parents=True)
        own = ["-o", f"Dir::State::Lists={lists / 'lists'}", "-o", f"Dir::Cache={lists / 'cache'}"]
        _run(["apt-get", *own, "update"], aside)
        _run(["apt-get", *own, "download", *_PACKAGES], aside)
    for package in aside.glob("*.deb"):
        _run(["dpkg", "-x", str(package), str(root)], aside)
    lacking = _lacking(root)
    if lacking:
        raise PlatformError(f"the drill's pods: sshd lacks {', '.join(lacking)}; {_INSTALL}")


def _lacking(root: Path) -> list[str]:
    """Libraries that the unpacked server would not find."""
    libraries = ":".join(sorted({str(path.parent) for path in root.rglob("*.so*")}))
    told = subprocess.run(
        ["ldd", str(root / "usr/sbin/sshd")],
        env={**os.environ, "LD_LIBRARY_PATH": libraries},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return [line.split()[0] for line in told.splitlines() if "not found" in line]


def _run(words: Sequence[str], folder: Path) -> None:
    """Run one of the system's tools.

    Raises:
        PlatformError: with its last words.
    """
    try:
        done = subprocess.run(
            words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_FETCH_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PlatformError(f"the drill's pods need sshd: {' '.join(words[:2])}: {error}; {_INSTALL}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise PlatformError(
            f"the drill's pods need sshd: {' '.join(words[:2])} ended with {done.returncode}: {''.join(said)}; "
            f"{_INSTALL}"
        )


if __name__ == "__main__":
    fetched(Path(sys.argv[1]))
