"""checkpoint.watch and what goes with it."""

from __future__ import annotations

import pytest


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
