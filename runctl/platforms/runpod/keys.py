"""The keys by which launcher and pod know each other.

A pair of our own for each attempt: the private half lies among this user's state (0600), its public half goes to the
pod. And the pod's own key, which is believed at first sight and kept in the run directory from then on.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from runctl.config.files import state_home
from runctl.errors import PlatformError
from runctl.rundir import RunDir

#: What a pod's address says of whose keys it has: a run directory and an attempt, the ones for which it was rented.
RENTED_FOR = "rented_for"


@dataclass(frozen=True)
class KeyPair:
    """A pair of keys.

    Attributes:
        path: of the private one, in OpenSSH's format: `ssh -i` takes it.
    """

    path: Path

    @property
    def public(self) -> str:
        """The public key as one line, as `authorized_keys` holds it."""
        return self.path.with_suffix(".pub").read_text().strip()

    def remove(self) -> None:
        """Remove both; its pod is gone, or nobody has anything to say to it any more."""
        for path in (self.path, self.path.with_suffix(".pub")):
            path.unlink(missing_ok=True)


def of_attempt(run_dir: str, attempt: int) -> KeyPair:
    """The pair of one attempt, made if there is none.

    Args:
        run_dir: the run directory's URL, which tells apart runs of one id below two roots.
        attempt: its number.

    Raises:
        PlatformError: if it cannot be kept.
    """
    path = place_of(run_dir, attempt)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make(path)
    except OSError as error:
        raise PlatformError(
            f"{path.parent}: the key of this run's pod cannot be kept there ({error.strerror}); "
            "XDG_STATE_HOME chooses another place"
        ) from error
    return KeyPair(path)


def place_of(run_dir: str, attempt: int) -> Path:
    """Where the private key of an attempt's pair lies, if this is the machine that made it."""
    name = f"{run_dir.rsplit('/', 1)[-1]}-{hashlib.blake2b(run_dir.encode(), digest_size=6).hexdigest()}-a{attempt}"
    return state_home() / "runpod" / "keys" / name


def _make(path: Path) -> None:
    """Make a pair; of two who do so at once, one wins."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as aside:
        for name, data in ((path.with_suffix(".pub").name, public + b" runctl\n"), (path.name, private)):
            descriptor = os.open(Path(aside, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        if not path.exists():
            for name in (path.with_suffix(".pub").name, path.name):
                Path(aside, name).replace(path.with_name(name))


class PinnedHost:
    """A pod's own key, in the run directory.

    Args:
        rundir: where it is kept.
        attempt: whose pod.
    """

    def __init__(self, rundir: RunDir, attempt: int) -> None:
        self._store = rundir.store
        self._name = f"hosts/a{attempt}.key"

    @property
    def place(self) -> str:
        return f"{self._store.url}/{self._name}"

    def read(self) -> str | None:
        """The key that was seen first, as `ssh-ed25519 AAAA…`; None if none was."""
        data = self._store.read(self._name)
        return None if data is None else data.decode().strip()

    def keep(self, key: str) -> None:
        """Believe a key from now on."""
        self._store.write(self._name, f"{key}\n".encode())
