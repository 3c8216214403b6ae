"""checkpoint.watch and what goes with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml


@pytest.mark.parametrize("glob", ["/out/*.pt", "../out/*.pt", "out/../../*.pt", "''"])
def test_a_glob_that_leaves_the_working_directory_is_refused(desk, glob):
    text = desk.refusal("script=train.py", f"checkpoint.watch={glob}")
    assert text.startswith("checkpoint.watch=")
    assert "relative to the script's working directory" in text


@pytest.mark.parametrize("word", ["checkpoint.resume_flag=--resume", "checkpoint.resume_argv=['--init=resume']"])
def test_words_to_resume_need_something_to_watch(desk, word):
    text = desk.refusal("script=train.py", word)
    assert text.startswith(word.split("=")[0])
    assert "checkpoint.watch=GLOB" in text


def test_nothing_is_appended_to_a_plan(desk):
    words = ("checkpoint.watch=out/*.pt", "checkpoint.resume_flag=--resume", "checkpoint.resume_argv=['--init=resume']")
    assert desk.script_words("script=train.py", "args.x=1", *words) == ["--x=1"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("[--init=resume]", ["--init=resume"]),
        ("[--init=resume,--strict]", ["--init=resume", "--strict"]),
        ("[--init=resume, x=1_000]", ["--init=resume", "x=1_000"]),
        ("['--init=resume','a, b']", ["--init=resume", "a, b"]),
        ("[-c,conf/${checkpoint.every}]", ["-c", "conf/10m"]),
        ("[]", []),
    ],
)
def test_words_to_resume_are_typed_as_the_script_knows_them(desk, typed: str, words: list[str]) -> None:
    out, _ = desk.run("script=train.py", f"checkpoint.resume_argv={typed}", "--cfg", "job", "--resolve")
    assert yaml.safe_load(out)["checkpoint"]["resume_argv"] == words


@pytest.mark.parametrize("typed", ["--resume", "--resume=", "ckpt.path="])
def test_a_flag_to_resume_may_end_with_its_equals_sign(desk, typed: str) -> None:
    out, _ = desk.run("script=train.py", f"checkpoint.resume_flag={typed}", "--cfg", "job")
    assert yaml.safe_load(out)["checkpoint"]["resume_flag"] == typed


def test_a_shell_hands_them_over_without_quotes(tmp_path: Path) -> None:
    launch = Path(sys.executable).with_name("runctl-launch")
    line = f"{launch} script=train.py checkpoint.watch=out/*.pt checkpoint.resume_argv=[--init=resume] --cfg job"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert yaml.safe_load(done.stdout)["checkpoint"]["resume_argv"] == ["--init=resume"]
