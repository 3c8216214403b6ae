"""Data is brought before the training and after it, the same way for every place; what prepares it runs in between."""

from __future__ import annotations

import json
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import boto3
import pytest
from real_launches import Launcher

from runctl.agent import staging as stagings
from runctl.agent.staging import Staging
from runctl.errors import DataError, RunctlError
from runctl.spec import Data, Transfer
from runctl.storage.local import LocalStore

SHOW = """
    import sys
    from pathlib import Path
    print(sorted(str(p.relative_to("data")) for p in Path("data").rglob("*") if p.is_file()))
    Path("out").mkdir(exist_ok=True)
    Path("out", "model.bin").write_bytes(b"weights")
    sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""


def bring(data: Data, workdir: Path, **more: Any) -> list[str]:
    """Bring the inputs; what was said."""
    said: list[str] = []
    staging = Staging(data, workdir, said.append)
    staging.before("python3", {}, lambda: None, more.get("stopped", lambda: False))
    return said


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name in ("a.bin", "deep/er/b c.bin", "deep/ü.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 1000)
    return folder


def test_a_folder_arrives_whole_and_an_unchanged_one_is_not_brought_again(source: Path, tmp_path: Path) -> None:
    data = Data((Transfer(str(source), "data"),))
    assert bring(data, tmp_path) == [f"brought {source} to data: 3 files, 31.0 kB"]
    assert tree(tmp_path / "data") == tree(source)
    assert bring(data, tmp_path) == [f"brought {source} to data: 0 files, 0 bytes; 3 files unchanged"]
    (source / "a.bin").write_bytes(b"new")
    (tmp_path / "data" / "deep" / "ü.bin").write_bytes(b"spoilt")
    assert bring(data, tmp_path) == [f"brought {source} to data: 2 files, 11.0 kB; 1 file unchanged"]
    assert tree(tmp_path / "data") == tree(source)


def test_one_file_is_brought_as_one(source: Path, tmp_path: Path) -> None:
    bring(Data((Transfer(str(source / "a.bin"), "data/one.bin"),)), tmp_path)
    assert (tmp_path / "data" / "one.bin").read_bytes() == (source / "a.bin").read_bytes()


def test_a_transfer_that_broke_off_goes_on_with_what_is_missing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Data((Transfer(str(source), "data"),))
    get = LocalStore.get_file

    def broken(self: LocalStore, name: str, *rest: Any) -> None:
        if name.endswith("a.bin"):
            raise OSError("the line is dead")
        get(self, name, *rest)

    monkeypatch.setattr(stagings, "_AT_ONCE", 1)
    monkeypatch.setattr(LocalStore, "get_file", broken)
    with pytest.raises(DataError, match=r"cannot be brought to data: the line is dead"):
        bring(data, tmp_path)
    there = tree(tmp_path / "data")
    assert "a.bin" not in there
    monkeypatch.setattr(LocalStore, "get_file", get)
    [said] = bring(data, tmp_path)
    assert f"{3 - len(there)} file" in said
    assert tree(tmp_path / "data") == tree(source)


def test_what_does_not_fit_is_said_before_the_first_byte(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    with pytest.raises(DataError, match=r"0\.0 GB to be brought, and .* has 0\.0 GB free"):
        bring(Data((Transfer(str(source), "data"),)), tmp_path)
    assert not (tmp_path / "data").exists()


def test_nothing_to_bring_is_an_error_before_and_said_after(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is nothing at nowhere; it was to be brought to data"):
        bring(Data((Transfer("nowhere", "data"),)), tmp_path)
    said: list[str] = []
    staging = Staging(Data((), (Transfer("out", "/elsewhere"),)), tmp_path, said.append)
    assert staging.after(lambda: None, lambda: False) is None
    assert said == ["data.outputs: there is nothing at out; nothing was brought to /elsewhere"]


def test_a_stop_ends_what_prepares_soon_and_without_an_error(tmp_path: Path) -> None:
    began = threading.Event()
    data = Data(before_train=("sh -c 'touch began; sleep 60; touch ended'",))

    def stopped() -> bool:
        if (tmp_path / "began").exists():
            began.set()
        return began.is_set()

    bring(data, tmp_path, stopped=stopped)
    assert began.is_set()
    assert not (tmp_path / "ended").exists()


@pytest.mark.parametrize(
    ("line", "why"),
    [("sh -c 'exit 3'", "failed with exit code 3"), ("no-such-program", "No such file or directory: no-such-program")],
)
def test_what_prepares_and_fails_ends_the_attempt(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(RunctlError, match=why):
        bring(Data(before_train=(line,)), tmp_path)


@pytest.mark.slow
def test_data_goes_from_a_bucket_through_a_training_into_a_bucket(s3, launcher: Launcher) -> None:
    bucket = s3.bucket()
    client = boto3.client("s3", endpoint_url=s3.env["AWS_ENDPOINT_URL"])
    for name in ("x/1.bin", "x/y/2.bin"):
        client.put_object(Bucket=bucket, Key=f"set/{name}", Body=name.encode())
    launcher.script("from pathlib import Path\nPath('data/prepared').write_text('yes')\n", "prepare.py")
    words = [
        f"data.inputs=[{{from: s3://{bucket}/set, to: data}}]",
        f"data.outputs=[{{from: out, to: s3://{bucket}/out}}]",
        "before_train=['prepare.py --all']",
    ]
    code, launch = launcher.run(*words, script=SHOW, env=s3.env)
    assert code == 0, launch.err
    assert "['prepared', 'x/1.bin', 'x/y/2.bin']" in launch.out
    assert client.get_object(Bucket=bucket, Key="out/model.bin")["Body"].read() == b"weights"
    client.delete_object(Bucket=bucket, Key="out/model.bin")
    code, launch = launcher.run(*words, "--", "train.py", "3", env=s3.env)
    assert code == 3
    assert client.get_object(Bucket=bucket, Key="out/model.bin")["Body"].read() == b"weights"


def test_outputs_that_cannot_be_brought_fail_a_training_that_succeeded(launcher: Launcher) -> None:
    (launcher.project / "data").mkdir()
    (launcher.project / "blocked").write_text("a file")
    code, launch = launcher.run("data.outputs=[{from: out, to: blocked/out}]", script=SHOW)
    assert code == 1
    outcome = json.loads((launch.run_dir / "outcome.json").read_text())
    assert outcome["state"] == "failed"
    assert "out cannot be brought to blocked/out" in outcome["reason"]
