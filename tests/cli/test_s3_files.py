"""`runctl s3`: real files to and from a real S3 API over HTTP."""

from __future__ import annotations

import json
import os
from pathlib import Path

import boto3
import pytest
from made import Home

from runctl import copying
from runctl.storage.s3 import Bucket


@pytest.fixture
def bucket(home: Home, s3: object, fresh_bucket: str) -> str:
    return f"s3://{fresh_bucket}"


def folder(home: Home, name: str = "out") -> Path:
    path = home.folder / name
    (path / "sub").mkdir(parents=True)
    (path / "a.bin").write_bytes(os.urandom(1000))
    (path / "sub" / "b.bin").write_bytes(os.urandom(2000))
    (path / "large.bin").write_bytes(os.urandom(9 << 20))  # in two parts
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


def test_a_folder_goes_and_comes_back_and_a_second_time_nothing_moves(home: Home, bucket: str) -> None:
    path = folder(home)
    told = json.loads(home.runctl("s3", "upload", "./out/", f"{bucket}/out/", "--recursive", "--json").stdout)
    assert (sorted(told["copied"]), told["same"]) == (["out/a.bin", "out/large.bin", "out/sub/b.bin"], 0)
    again = json.loads(home.runctl("s3", "upload", "./out/", f"{bucket}/out/", "--recursive", "--json").stdout)
    assert (again["copied"], again["same"]) == ([], 3)
    home.runctl("s3", "download", f"{bucket}/out/", "./back/", "--recursive")
    assert contents(home.folder / "back") == contents(path)
    assert "3 files the same already" in home.runctl("s3", "download", f"{bucket}/out/", "back", "-r").stdout


def test_one_file_goes_into_a_folder_or_to_a_name(home: Home, bucket: str) -> None:
    folder(home)
    home.runctl("s3", "upload", "out/a.bin", f"{bucket}/checkpoints/")
    home.runctl("s3", "upload", "out/a.bin", f"{bucket}/other")
    home.runctl("s3", "upload", "out/a.bin", bucket)
    names = [one["name"] for one in json.loads(home.runctl("s3", "list", bucket, "-r", "--json").stdout)]
    assert names == ["a.bin", "checkpoints/a.bin", "other"]
    home.runctl("s3", "download", f"{bucket}/other")
    assert (home.folder / "other").read_bytes() == (home.folder / "out/a.bin").read_bytes()


def test_a_folder_wants_recursive(home: Home, bucket: str) -> None:
    folder(home)
    said = home.runctl("s3", "upload", "out", f"{bucket}/out", expect=2).stderr
    assert "folder of 3 files; --recursive" in said
    assert "there is nothing" in home.runctl("s3", "download", f"{bucket}/none", "x", expect=2).stderr


def test_dry_run_says_it_and_does_nothing(home: Home, bucket: str) -> None:
    folder(home)
    said = home.runctl("s3", "upload", "out", f"{bucket}/out", "-r", "--dry-run").stdout
    assert f"out/a.bin to {bucket}/out/a.bin (1.0 kB)" in said and "3 files would be sent, 9.4 MB" in said
    assert "there is nothing" in home.runctl("s3", "list", bucket).stdout


def test_what_broke_off_goes_on_with_what_is_missing(home: Home, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(home)
    put = Bucket.put

    def break_off(self: Bucket, source: Path, key: str, moved: object) -> None:
        if "large" in key:
            raise OSError("the line is cut")
        put(self, source, key, moved)

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "put", break_off)
        patched.setattr(copying, "_AT_ONCE", 1)
        assert "the line is cut" in home.runctl("s3", "upload", "out", f"{bucket}/out", "-r", expect=2).stderr
    told = json.loads(home.runctl("s3", "upload", "out", f"{bucket}/out", "-r", "--json").stdout)
    assert "out/large.bin" in told["copied"] and told["same"] == 3 - len(told["copied"])


def test_sync_copies_what_differs_also_of_the_same_size_and_deletes_when_told(home: Home, bucket: str) -> None:
    path = folder(home)
    home.runctl("s3", "sync", "out", f"{bucket}/out")
    stamp = (path / "a.bin").stat()
    (path / "a.bin").write_bytes(os.urandom(1000))
    os.utime(path / "a.bin", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # neither size nor time tell
    (path / "sub" / "b.bin").unlink()
    told = json.loads(home.runctl("s3", "sync", "out", f"{bucket}/out", "--json").stdout)
    assert (told["copied"], told["same"], told["removed"]) == (["out/a.bin"], 1, [])
    told = json.loads(home.runctl("s3", "sync", "out", f"{bucket}/out", "--delete", "--json").stdout)
    assert told["removed"] == ["sub/b.bin"]
    home.runctl("s3", "sync", f"{bucket}/out", "back")
    assert contents(home.folder / "back") == contents(path)
    (home.folder / "back" / "a.bin").write_bytes(b"x" * 1000)
    assert json.loads(home.runctl("s3", "sync", f"{bucket}/out", "back", "--json").stdout)["same"] == 1
    assert contents(home.folder / "back") == contents(path)


def test_between_buckets(home: Home, bucket: str) -> None:
    folder(home)
    home.runctl("s3", "sync", "out", f"{bucket}/one")
    assert "3 files copied" in home.runctl("s3", "sync", f"{bucket}/one", f"{bucket}/two").stdout
    assert "3 files the same" in home.runctl("s3", "sync", f"{bucket}/one", f"{bucket}/two").stdout


def test_a_download_that_is_not_what_s3_tells_of_is_an_error(
    home: Home, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(home)
    home.runctl("s3", "upload", "out/a.bin", f"{bucket}/a.bin")
    get = Bucket.get

    def flip(self: Bucket, key: str, target: Path, *rest: object) -> None:
        get(self, key, target, *rest)
        target.write_bytes(os.urandom(1000))

    monkeypatch.setattr(Bucket, "get", flip)
    assert "not what S3 tells of" in home.runctl("s3", "download", f"{bucket}/a.bin", "back", expect=1).stderr
    assert not (home.folder / "back").exists()


def test_an_etag_that_is_no_md5_is_no_error(home: Home, bucket: str) -> None:
    (home.folder / "k.bin").write_bytes(b"k" * 4096)
    name = bucket.removeprefix("s3://")
    upload = boto3.client("s3").create_multipart_upload(Bucket=name, Key="k.bin")["UploadId"]
    part = boto3.client("s3").upload_part(Bucket=name, Key="k.bin", UploadId=upload, PartNumber=1, Body=b"k" * 4096)
    boto3.client("s3").complete_multipart_upload(
        Bucket=name, Key="k.bin", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    home.runctl("s3", "download", f"{bucket}/k.bin", "back.bin")
    assert (home.folder / "back.bin").read_bytes() == b"k" * 4096


def test_rm_asks_and_removes(home: Home, bucket: str) -> None:
    folder(home)
    home.runctl("s3", "sync", "out", f"{bucket}/out")
    assert "--recursive" in home.runctl("s3", "rm", f"{bucket}/out", expect=2).stderr
    assert "3 files" in home.runctl("s3", "rm", f"{bucket}/out", "-r", "--dry-run").stdout
    home.runctl("s3", "rm", f"{bucket}/out", "-r", expect=1)  # nobody says yes
    home.runctl("s3", "rm", f"{bucket}/out/a.bin")
    home.runctl("s3", "rm", f"{bucket}/out", "-r", "-f")
    assert json.loads(home.runctl("s3", "list", bucket, "--json").stdout) == []


def test_list_sums_up_folders(home: Home, bucket: str) -> None:
    folder(home)
    home.runctl("s3", "sync", "out", f"{bucket}/out")
    assert json.loads(home.runctl("s3", "list", bucket, "--json").stdout)[0]["files"] == 3
    assert "sub/" in home.runctl("s3", "list", f"{bucket}/out").stdout


def test_any_file_system_of_fsspec_will_do(home: Home) -> None:
    folder(home)
    url = f"memory://{home.folder.name}"
    assert "3 files copied" in home.runctl("s3", "sync", "out", f"{url}/out").stdout
    assert "3 files the same" in home.runctl("s3", "sync", "out", f"{url}/out").stdout
    home.runctl("s3", "download", f"{url}/out", "back", "-r")
    assert contents(home.folder / "back") == contents(home.folder / "out")
