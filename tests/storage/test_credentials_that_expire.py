"""Credentials of a file that expire in the middle: whoever signs in again need not launch again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runctl.drill.cloud import Cloud
from runctl.drill.faults import Fault
from runctl.errors import StorageError
from runctl.storage import Store, open_store


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as cloud:
        cloud.make_bucket("expiring")
        yield cloud


@pytest.fixture
def sign_in(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    import s3fs

    file = tmp_path / "credentials"
    settings = {**cloud.environment({}), "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    def sign_in(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = drill\n")

    s3fs.S3FileSystem.clear_instance_cache()
    yield sign_in
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("action", "use"),
    [
        ("GetObject", lambda store: store.read("status.json")),
        ("PutObject", lambda store: store.write("stop.json", b"{}")),
        ("ListObjectsV2", lambda store: store.names("logs")),
    ],
    ids=["reading", "writing", "listing"],
)
def test_once_expired_they_are_read_anew(
    cloud: Cloud, sign_in: Callable[[str], None], action: str, use: Callable[[Store], object]
) -> None:
    sign_in("AKIABEFORE")
    store = open_store("s3://expiring/runs/one")
    store.write("status.json", b"{}")
    use(store)
    cloud.inject(Fault(action, "ExpiredToken", message="The provided token has expired."))
    with pytest.raises(StorageError, match="expired"):
        use(store)
    sign_in("AKIAAFTER")
    # The file was looked at when they expired, before anybody signed in; they are still the old ones, and expire again.
    cloud.inject(Fault(action, "ExpiredToken", message="The provided token has expired."))
    with pytest.raises(StorageError, match="expired"):
        use(store)
    use(store)
    own = [one["key"] for one in cloud.calls() if one["action"] == action and not one["error"]]
    assert own[-1] == "AKIAAFTER"
