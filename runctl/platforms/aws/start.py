"""The one command that an instance is sent: fetch the keeper and its orders, verify both, start it.

It has no place for secrets, starts nothing twice, and is small: SSM takes 64 KB. What it fetches comes by presigned
URLs, so that nothing need be installed on the image but Python.
"""

from __future__ import annotations

import shlex
from urllib.parse import urlsplit

from runctl.errors import ConfigError, PlatformError
from runctl.hosts import ROOT
from runctl.platforms import parcel
from runctl.platforms.aws.clients import Clients, translated

_SETUP = "`runctl aws setup` makes one for your runs, or name another: run.root=s3://my-bucket/runs"
#: How long a link is good: the host follows it within minutes.
LINK_S = 3600

_FETCH = """
import hashlib, os, sys, time, urllib.request
folder, *wanted = sys.argv[1:]
os.makedirs(folder, mode=0o700, exist_ok=True)
for name, sha256, url in zip(wanted[::3], wanted[1::3], wanted[2::3]):
    path = os.path.join(folder, name)
    for left in (4, 3, 2, 1, 0):
        try:
            data = urllib.request.urlopen(url, timeout=20).read()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise OSError("not what was sent")
            break
        except OSError as error:
            if not left:
                sys.exit("runctl: cannot fetch %s: %s" % (name, error))
            time.sleep(3)
    aside = "%s.%d" % (path, os.getpid())
    with open(aside, "wb") as file:
        file.write(data)
    os.replace(aside, path)
"""


#: Before anything is written there. What the kernel calls the volume is the kernel's choice: it is the one of its size
#: that holds nothing. Not in the drill, whose folder is another: the disks of this machine are none of its business.
_MOUNT = """
if [ -z "${{RUNCTL_HOST_ROOT:-}}" ] && ! mountpoint -q {folder}; then
  volume=
  for device in $(lsblk -dnbpo NAME,TYPE,SIZE | awk '$2 == "disk" && $3 == {size_bytes} {{print $1}}'); do
    if [ "$(lsblk -nro NAME "$device" | wc -l)" = 1 ] && ! blkid "$device" > /dev/null; then volume=$device; fi
  done
  test -n "$volume" || {{ echo "runctl: no empty volume of {gib} GiB" >&2; exit 1; }}
  mkfs.ext4 -q "$volume" && mkdir -p {folder} && mount -o noatime "$volume" {folder}
fi
"""


def script(run_id: str, attempt: int, files: list[tuple[str, str, str]], data_volume_gib: int | None) -> str:
    """The command, for `sh`.

    Args:
        run_id: whose.
        attempt: its number.
        files: name, SHA-256 and URL of the keeper and of its orders.
        data_volume_gib: the size of an empty volume that is attached, for everything that is runctl's.
    """
    words = [word for file in files for word in file]
    return "\n".join(
        (
            "set -eu",
            *([] if data_volume_gib is None else [_mount(data_volume_gib)]),
            f"folder={parcel.home(run_id, attempt)}",
            # A host that has been told already must not be told otherwise: its keeper reads these files.
            f'test -e "$folder/{files[0][0]}" && test -e "$folder/{files[-1][0]}" ||'
            f' python3 -c {shlex.quote(_FETCH)} "$folder" {shlex.join(words)}',
            f'exec python3 "$folder/{files[0][0]}" start "$folder"',
        )
    )


def _mount(gib: int) -> str:
    return _MOUNT.strip().format(folder=ROOT, size_bytes=gib << 30, gib=gib)


class Links:
    """Presigned URLs below the root of runs.

    Args:
        clients: AWS's clients.
        url: of a bucket and prefix.
    """

    def __init__(self, clients: Clients, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("s3", "s3a") or not parts.netloc:
            raise ConfigError(f"run.root={url} is no bucket, and a rented host cannot reach it; {_SETUP}")
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        self._clients = clients

    def check(self) -> None:
        """Check that links to the bucket can be made.

        Raises:
            NotAllowed: if the bucket is somebody else's.
            ConfigError: if there is none of that name.
            PlatformError: if it does not answer.
        """
        try:
            with translated(f"run.root: bucket {self._bucket}"):
                self._clients.region_of(self._bucket)
        except PlatformError as error:
            if "NoSuchBucket" in str(error):
                raise ConfigError(f"run.root: there is no bucket {self._bucket}; {_SETUP}") from error
            raise

    def get(self, key: str) -> str:
        """A URL that reads an object for a while."""
        return self._presigned("get_object", key)

    def put(self, key: str) -> str:
        """A URL that writes an object for a while."""
        return self._presigned("put_object", key)

    def _presigned(self, method: str, key: str) -> str:
        with translated(f"bucket {self._bucket}"):
            # A signature is good in the bucket's own region alone.
            s3 = self._clients.s3(self._clients.region_of(self._bucket))
            where = {"Bucket": self._bucket, "Key": f"{self._prefix}/{key}" if self._prefix else key}
            url: str = s3.generate_presigned_url(method, Params=where, ExpiresIn=LINK_S)
        return url
