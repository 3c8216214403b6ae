"""A loopback cloud for as long as somebody holds it: started, steered, ended with everything that ran in it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from runctl import processes
from runctl.drill.metadata import LAUNCHER, SECRET
from runctl.drill.sandboxes import MARK
from runctl.drill.steering import Steered, answer_of, without_proxy
from runctl.errors import ConfigError, MissingExtra, PlatformError

_REGION = "us-east-1"


class Cloud(Steered):
    """Starts a cloud on loopback.

    Args:
        folder: for its instances; a temporary one if None, which goes at the end.
        s3: what answers for S3, moto or swift.
        iam: whether rights are checked. The drill's own keys are the account's, which may do everything; users and
            roles are made with them, and nothing is there but what AWS puts into a new account. Signatures are not
            looked at, and only moto's S3 can be asked whose key it was.
        record: whether every request and its answer are kept, as files in `requests`.

    Raises:
        ConfigError: for rights in swift.
    """

    def __init__(
        self, folder: Path | None = None, *, s3: str = "moto", iam: bool = False, record: bool = False
    ) -> None:
        if iam and s3 != "moto":
            raise ConfigError(f"s3={s3}: it knows the drill's own keys alone, so rights are checked in moto's S3")
        self._s3_server = s3
        self._options = [name for name, wanted in (("iam", iam), ("record", record)) if wanted]
        self._kept = folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="runctl-drill-"))
        self._empty = self.folder / "no-settings"
        self._empty.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Cloud:
        """Start it, and wait until it answers.

        Raises:
            MissingExtra: without moto, or Swift if that was asked for.
            PlatformError: if it does not start.
        """
        try:
            import moto  # noqa: F401
        except ImportError as error:
            raise MissingExtra("the drill", "drill") from error
        if self._s3_server == "swift" and importlib.util.find_spec("swift") is None:
            raise MissingExtra("drill.s3=swift", "swift")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runctl.drill.server", str(self.folder), "0", self._s3_server, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**self.environment(os.environ), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()
        if not self.url.startswith("http://127.0.0.1:"):
            self._end([])
            raise PlatformError("the drill's cloud did not start; what it said stands above")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._end([one["id"] for one in self.instances()] if self._process.poll() is None else [])

    def _end(self, ids: Sequence[str]) -> None:
        """End the cloud, and what runs on these instances; on all of which something is left, if it names none."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        for one in ids or [path.name for path in self.folder.glob("i-*")]:
            processes.end_by_environment(MARK, one)
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self, base: Mapping[str, str], *, keys: tuple[str, str] = (LAUNCHER, SECRET)) -> dict[str, str]:
        """An environment in which every AWS client comes here and knows nothing of any account of the user's.

        Args:
            base: what else is in it; whatever is AWS's there is dropped.
            keys: access key and secret; the account's own if nothing is said.
        """
        return {
            **{name: value for name, value in base.items() if not name.startswith("AWS_")},
            **without_proxy(base),
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": keys[0],
            "AWS_SECRET_ACCESS_KEY": keys[1],
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self._empty),
            "AWS_SHARED_CREDENTIALS_FILE": str(self._empty),
        }

    def make_bucket(self, name: str) -> None:
        """Make a bucket of the drill's."""
        self._s3("PUT", name)

    def read(self, url: str) -> bytes | None:
        """An object's bytes, or None if there is none.

        Args:
            url: such as s3://bucket/key.
        """
        try:
            return self._s3("GET", url.removeprefix("s3://"))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def _s3(self, method: str, path: str) -> bytes:
        """One request, signed by hand: boto3 would look for the user's own settings."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        settings = self.environment({})
        keys = Credentials(settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"])
        signed = AWSRequest(method, f"{self.url}/{urllib.parse.quote(path)}", headers={"Host": self.url[7:]})
        S3SigV4Auth(keys, "s3", _REGION).add_auth(signed)
        request = urllib.request.Request(signed.url, headers=dict(signed.headers), method=method)
        return answer_of(request)

    def instances(self) -> list[dict[str, Any]]:
        """Every instance that was launched, those that have ended too."""
        told: list[dict[str, Any]] = self._ask("instances")
        return told

    def interrupt(self, instance: str, notice_s: float = 120.0) -> None:
        """Have AWS take a spot instance back, after its notice."""
        self._ask("interrupt", instance=instance, notice_s=notice_s)

    def rebalance(self, instance: str) -> None:
        """Have AWS recommend to leave an instance."""
        self._ask("rebalance", instance=instance)

    def kill(self, instance: str) -> None:
        """Have an instance vanish."""
        self._ask("kill", instance=instance)

    def set_quota(self, code: str, value: float) -> None:
        """Have Service Quotas tell another value of one of EC2's quotas."""
        self._ask("quota", code=code, value=value)

    def set_spot_price(self, machine: str, zone: str, price: float, at: float) -> None:
        """Have the price on spot change at a moment, which may be over (seconds since the epoch)."""
        self._ask("price", machine=machine, zone=zone, price=price, at=at)

    def make_subnet(self, zone: str, endpoints: Sequence[str] = ()) -> str:
        """Make a subnet with no way out in a region's default network.

        Args:
            zone: such as us-east-1a.
            endpoints: what of AWS can be reached from there all the same: `ssm`, `ssmmessages`, `ec2messages`, `s3`.

        Returns:
            Its id. An instance there that reaches no SSM is never seen by it.
        """
        made: str = self._ask("subnet", region=zone.rstrip("abcdefgh"), zone=zone, endpoints=",".join(endpoints))
        return made

    def denied(self) -> list[dict[str, str]]:
        """Every right that somebody needed and did not have: `caller`, `action`, `resource`."""
        told: list[dict[str, str]] = self._ask("denied")
        return told

    @property
    def requests(self) -> Path:
        """Where requests are kept, if they are."""
        return self.folder / "requests"
