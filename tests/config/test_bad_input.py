"""Bad input at the console: exit code 2, one sentence on standard error, no traceback; and nothing heavy loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runctl.errors import ExitCode

LAUNCH = Path(sys.executable).parent / "runctl-launch"
HEAVY = ["torch", "boto3", "botocore", "s3fs", "fsspec", "runpod"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no script"),
        (["script=nope.py"], "is not there"),
        (["script=train.py", "+trainer.lrr=3"], "trainer.lrr: no such key"),
        (["script=train.py", "trainer.nnodes=x"], "trainer.nnodes: Value 'x'"),
        (["script=train.py", "platform=gcp"], "there are aws, local, runpod"),
        (["script=train.py", "trainer=ddp", "trainer.nproc_per_node=0"], "trainer.nproc_per_node=0: at least 1"),
        (["script=train.py", "args.lr=1", "multipliers.lr=0"], "multipliers.lr=0: a multiplier is a number above 0"),
        (["script=train.py", "run.root=train.py/runs"], "choose another place with run.root="),
        (["script=train.py", "--lr", "3"], "behind --"),
        (["-m", "script=train.py", "args.x=1,2", "output=xml"], "output: Invalid value 'xml'"),
    ],
)
def test_bad_input_is_told_in_a_sentence(desk, words, told):
    done = console(*words)
    assert done.returncode == ExitCode.CONFIG
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("runctl-launch: ")
    assert told in done.stderr


@pytest.mark.parametrize("words", [["script=train.py", "dry_run=true"], ["--help"]], ids=["dry_run", "help"])
def test_nothing_heavy_is_loaded(desk, words):
    code = (
        "import json, sys; from runctl.launch import launch\n"
        f"launch({words!r})\n"
        f"print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_version_and_help_need_no_project(desk):
    assert console("--version").stdout.startswith("runctl ")
    assert console("--help").returncode == 0


def test_a_hostile_value_touches_nothing(desk):
    done = console("script=train.py", "args.x='$(touch pwned)'", "dry_run=true", "--", "`touch pwned`")
    assert done.returncode == 0
    assert not Path("pwned").exists()


def console(*words: str) -> subprocess.CompletedProcess[str]:
    """The console script, as a shell would start it, where the test stands."""
    return subprocess.run(
        [LAUNCH, *words], env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("before_train=[{a: 1}]", "before_train[0]={'a': 1}: one word, not a map"),
        ("argv=[a,[b]]", "argv[1]=['b']: one word, not a list"),
        ("notify=[{slack: x}]", "notify[0]: one word, not a map"),
        ("platform.setup=[{a: 1}]", "platform.setup[0]={'a': 1}: one word, not a map"),
    ],
)
def test_a_list_of_words_takes_no_map(desk, word: str, said: str) -> None:
    words = ["+platform=aws"] if word.startswith("platform.") else []
    assert desk.refusal("script=train.py", *words, word) == said
