"""What tests of several parts need: a real S3 API over HTTP on loopback, by moto and by OpenStack Swift."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import secrets
import signal
import socket
from collections.abc import Iterator

import pytest

from runctl.drill.cloud import Cloud

#: What leads to the account of whoever runs the tests: kept aside for those that are meant to reach it (tests/cloud).
USERS_OWN = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
NOBODYS = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
os.environ.update(NOBODYS)
# Nor does anything reach RunPod from here, whatever key lies in the home of whoever runs the tests.
for _name in [name for name in os.environ if name.startswith("RUNPOD_")]:
    del os.environ[_name]
os.environ["RUNPOD_API_BASE_URL"] = "http://127.0.0.1:9"
# `nohup` and a shell's `&` have a process ignore these, and its children too: launches would not hear them.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is known to take long has more time before it counts as hung."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(450))


@pytest.fixture(scope="session", autouse=True)
def nobodys_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is launched here is not noted among the runs of whoever runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def users_own() -> dict[str, str]:
    """The variables of AWS's that were set where the tests were started."""
    return USERS_OWN


def quiet_port() -> int:
    """A free port below those that the kernel hands out, so that nobody takes it while the server is shut."""
    for port in random.sample(range(20000, 32000), 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def new_bucket() -> str:
    """Make a bucket where the environment leads, and return its name."""
    import boto3

    name = f"test-{secrets.token_hex(6)}"
    boto3.Session().client("s3").create_bucket(Bucket=name)  # the default session remembers earlier keys
    return name


class S3:
    """moto's S3 over HTTP; it can be shut and opened again at the same port, and keeps its objects meanwhile."""

    def __init__(self) -> None:
        self.port = quiet_port()
        self._open(self.port)
        self.env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            **NOBODYS,
        }

    def bucket(self) -> str:
        """Make a bucket, and return its name."""
        return new_bucket()

    def shut(self) -> None:
        self._server.stop()

    def open(self) -> None:
        self._open(self.port)

    def _open(self, port: int) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self._server.start()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """moto's S3; clients of this process and of those that it starts come there."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3()
    with led_to(server.env, monkeypatch):
        yield server
    server.shut()


@pytest.fixture(scope="session")
def swift_cloud() -> Iterator[Cloud]:
    with Cloud(s3="swift") as cloud:
        yield cloud


@pytest.fixture
def fresh_bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket: for every test once in moto's S3 and once in Swift's, but in moto's alone if it works on `s3`."""
    if request.param == "moto":
        yield request.getfixturevalue("s3").bucket()
        return
    with led_to(request.getfixturevalue("swift_cloud").environment({}), monkeypatch):
        yield new_bucket()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fresh_bucket" in metafunc.fixturenames:
        servers = ["moto"] if "s3" in metafunc.fixturenames else ["moto", "swift"]
        metafunc.parametrize("fresh_bucket", servers, indirect=True)


@contextlib.contextmanager
def led_to(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have AWS's clients see these variables alone."""
    import s3fs

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    # fsspec keeps file systems by their options, and the endpoint is none of them.
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()
