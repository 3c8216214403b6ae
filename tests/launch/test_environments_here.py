"""`python_env=uv` on one's own machine: made once, below the user's cache, and used by torchrun too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from indexes import Index, wheel

SCRIPT = """
import sys, torch, quill
print("prefix", sys.prefix, quill.INK, flush=True)
"""


@pytest.fixture
def index() -> Iterator[Index]:
    server = Index(dict([wheel("quill", "1.0", "INK = 'blue'\n")]))
    yield server
    server.close()


@pytest.mark.soak
def test_it_is_made_once_and_torchrun_starts_from_it(launch, project: Path, tmp_path: Path, index: Index) -> None:
    (project / "train.py").write_text(SCRIPT)
    (project / "requirements.txt").write_text("quill\n")
    env = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "UV_DEFAULT_INDEX": index.url,
        "UV_CACHE_DIR": str(tmp_path / "uv"),
    }
    first = launch("script=train.py", "python_env=uv", env=env)
    assert first.code == 0, first.err
    assert "requirements.txt (uv): made in" in first.err
    index.close()
    words = ("script=train.py", "python_env=auto", "trainer=ddp", "trainer.nproc_per_node=2", "logs.prefix=none")
    second = launch(*words, env=env)
    assert second.code == 0, second.err
    assert "requirements.txt (uv): as it was made here before in" in second.err
    prefixes = set(re.findall(r"^prefix (\S+) blue", first.out + second.out, re.M))
    assert len(prefixes) == 1, first.out + second.out
    assert prefixes.pop().startswith(str(tmp_path / "cache" / "runctl" / "environments"))
    assert not list((project / "runs").glob(".environments/*")), "here nothing need be carried anywhere"


def test_without_it_the_launchers_own_python_trains(launch, project: Path) -> None:
    (project / "train.py").write_text("import sys\nprint('prefix', sys.prefix)\n")
    (project / "requirements.txt").write_text("no-such-package\n")
    done = launch("script=train.py")
    assert done.code == 0, done.err
    assert "environment" not in done.err
