"""The project as git sees it, packed to the same bytes for the same content; and runctl's own wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from runctl import bundle
from runctl.errors import ConfigError

LIMIT = 10_000_000
ODD = "it's $(odd)\n ü.py"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "pkg").mkdir(parents=True)
    git(root, "init", "-q")
    for name, text in {"train.py": "1", "pkg/a.py": "2", ".gitignore": "*.bin\n", "gone.py": "3", ODD: "4"}.items():
        (root / name).write_text(text)
    git(root, "add", "-A")
    git(root, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "all")
    (root / "train.py").write_text("changed")
    (root / "gone.py").unlink()
    (root / "new.py").write_text("untracked")
    (root / "data.bin").write_text("ignored")
    (root / "link.py").symlink_to("pkg/a.py")
    (root / "runs" / "x-1").mkdir(parents=True)
    (root / "runs" / "x-1" / "spec.json").write_text("{}")
    return root


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)


def packed(project: Path, target: Path) -> tuple[bundle.Bundle, Path]:
    target.mkdir()
    made = bundle.pack(project, target, max_bytes=LIMIT)
    with tarfile.open(made.path) as tar:
        tar.extractall(target / "out", filter="data")
    return made, target / "out"


def test_it_holds_what_git_sees_as_it_is_now(project: Path, tmp_path: Path) -> None:
    _, out = packed(project, tmp_path / "one")
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {"train.py", "pkg/a.py", ".gitignore", "new.py", "link.py", ODD}
    assert (out / "train.py").read_text() == "changed"
    assert str((out / "link.py").readlink()) == "pkg/a.py"


def test_the_same_content_is_the_same_bytes(project: Path, tmp_path: Path) -> None:
    first, _ = packed(project, tmp_path / "one")
    os.utime(project / "train.py", (0, 0))
    second, _ = packed(project, tmp_path / "two")
    assert first.sha256 == second.sha256
    (project / "train.py").write_text("other")
    third, _ = packed(project, tmp_path / "three")
    assert third.sha256 != first.sha256


def test_more_can_be_left_out(project: Path, tmp_path: Path) -> None:
    (project / ".runctlignore").write_text("pkg/\nnew.py\n")
    (project / "link.py").unlink()
    _, out = packed(project, tmp_path / "one")
    assert not (out / "pkg").exists()
    assert not (out / "new.py").exists()
    assert (out / "train.py").exists()


def test_a_project_too_large_is_refused_with_its_largest_files(project: Path, tmp_path: Path) -> None:
    (project / "big.py").write_bytes(b"0" * (LIMIT + 1))
    with pytest.raises(ConfigError, match=r"the project has 10 MB, and 10 MB may be sent: big\.py \(10 MB\)"):
        bundle.pack(project, tmp_path, max_bytes=LIMIT)


def test_a_link_out_of_the_project_is_refused_by_name(project: Path, tmp_path: Path) -> None:
    (project / "out.py").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match=r"out\.py is a link to /etc/passwd, out of the project"):
        bundle.pack(project, tmp_path, max_bytes=LIMIT)


def test_the_wheel_can_be_imported_and_is_the_same_every_time(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    wheel, again = bundle.wheel(tmp_path), bundle.wheel(tmp_path / "again")
    assert wheel.read_bytes() == again.read_bytes()
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); import runctl, runctl.conf; print(runctl.__file__)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert str(wheel) in done.stdout
