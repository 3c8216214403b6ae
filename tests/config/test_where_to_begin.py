"""checkpoint.resume and checkpoint.url: what can be told at once is told at once."""

from __future__ import annotations

import pytest

from runctl.config.argv import parse


def test_a_run_that_is_not_there_is_named_with_those_that_are_near(desk):
    (desk.folder / "runs" / "digits-a").mkdir(parents=True)
    (desk.folder / "runs" / "digits-a" / "spec.json").touch()
    text = desk.refusal("script=train.py", "checkpoint.resume=digits-b")
    assert text.startswith("checkpoint.resume=digits-b: ")
    assert "there are digits-a" in text


def test_a_path_that_is_not_there_is_refused(desk):
    text = desk.refusal("script=train.py", "checkpoint.resume=elsewhere/run")
    assert text == f"checkpoint.resume=elsewhere/run: there is no folder {desk.folder / 'elsewhere/run'}"


@pytest.mark.parametrize("word", ["auto", "never", "s3://bucket/runs/one"])
def test_the_known_words_and_a_url_are_taken(desk, word):
    assert desk.plan("script=train.py", f"checkpoint.resume={word}")


@pytest.mark.parametrize(("word", "lacks"), [("require", "there is no checkpoint"), ("120", "of step 120")])
def test_a_new_run_has_no_checkpoint_that_could_be_required(desk, word, lacks):
    text = desk.refusal("script=train.py", f"checkpoint.resume={word}", "dry_run=true")
    assert text.startswith(f"checkpoint.resume={word}: ") and lacks in text


def test_an_empty_url_is_refused(desk):
    assert desk.refusal("script=train.py", "checkpoint.url=''").startswith("checkpoint.url is empty")


def test_an_unknown_file_system_is_refused_before_anything_starts(desk):
    assert parse([]).launches_here() is not None
    text = desk.refusal("script=train.py", "checkpoint.url=nosuch://bucket/x")
    assert "nosuch" in text
    assert not (desk.folder / "runs").exists()
