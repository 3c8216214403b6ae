"""What is launched: script=, module=, and the words behind `--`."""

from __future__ import annotations

import pytest

PROJECT = "script: train.py\nargs: {batch_size: 2, learning_rate: 0.5}\n"


def test_without_a_script_the_error_shows_both_ways_to_name_one(desk):
    text = desk.refusal()
    assert "no script" in text
    assert "script=train.py" in text
    assert "runctl-launch -- train.py" in text


def test_a_script_that_is_not_there_names_the_path_and_what_is(desk):
    text = desk.refusal("script=nope.py")
    assert f"{desk.folder / 'nope.py'} is not there; here are train.py" in text


def test_a_folder_is_no_script(desk):
    assert "is a folder" in desk.refusal("script=.")


def test_script_and_module_exclude_each_other(desk):
    assert "give one of them" in desk.refusal("script=train.py", "module=pkg.mod")


def test_a_module_is_run_as_python_m_does(desk):
    assert desk.plan("module=pkg.mod", "args.lr=1")["plan"]["argv"][-3:] == ["module", "pkg.mod", "--lr=1"]


def test_the_tail_is_typed_as_torchrun_users_know_it(desk):
    assert desk.plan("--", "train.py", "--lr", "1e-3")["plan"]["argv"][-4:] == [
        "script",
        str(desk.folder / "train.py"),
        "--lr",
        "1e-3",
    ]


def test_the_tail_may_name_a_module(desk):
    assert desk.plan("--", "-m", "pkg.mod", "x")["plan"]["argv"][-3:] == ["module", "pkg.mod", "x"]


def test_a_tail_that_names_no_module_says_so(desk):
    assert "name the module" in desk.refusal("--", "-m")


def test_a_tail_behind_a_named_script_is_its_words(desk):
    assert desk.script_words("script=train.py", "--", "--lr", "1") == ["--lr", "1"]
    assert desk.script_words("script=train.py", "--", "data.csv") == ["data.csv"]


def test_a_tail_of_options_belongs_to_the_projects_script(desk):
    desk.project(PROJECT)
    assert desk.script_words("--", "--lr", "1") == ["--batch_size=2", "--learning_rate=0.5", "--lr", "1"]


def test_a_script_in_the_tail_does_not_get_the_projects_arguments(desk):
    desk.project(PROJECT)
    (desk.folder / "other.py").touch()
    assert desk.script_words("args.x=1", "--", "other.py", "-v") == ["--x=1", "-v"]


def test_the_tail_is_never_scaled_and_that_is_said(desk):
    words = ("platform=aws", "dry_run=true", "--", "train.py", "--batch_size=64")
    out, err = desk.run(*words)
    assert "--batch_size=64\n" in out
    assert err == "runctl: what stands behind -- is handed over verbatim and never scaled\n"


def test_a_second_double_dash_belongs_to_the_script(desk):
    assert desk.script_words("--", "train.py", "a", "--", "b") == ["a", "--", "b"]


@pytest.mark.parametrize(
    "word", ["dry_run=false", "-h", "--help", "-m", "-p", "no:cost", "--version", "+platform=x", ""]
)
def test_nothing_behind_the_double_dash_is_ours(desk, word):
    assert desk.script_words("script=train.py", "--", "--", word) == ["--", word]


def test_positional_words_stand_ahead_and_the_tail_behind(desk):
    assert desk.script_words("script=train.py", "argv=[fit, 3, -v]", "args.lr=1", "--", "end") == [
        "fit",
        "3",
        "-v",
        "--lr=1",
        "end",
    ]


def test_negative_numbers_keep_the_equals_form(desk):
    assert desk.script_words("script=train.py", "args.shift=-1", "args.x=-0.5") == ["--shift=-1", "--x=-0.5"]


def test_null_leaves_an_argument_out(desk):
    desk.project("script: train.py\nargs: {lr: 1, wd: 2}\n")
    assert desk.script_words("args.wd=null") == ["--lr=1"]


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ([], ["--a_b=1", "--on=True", "--off=False", "--l=1", "--l=x"]),
        (["args_keys=dashes"], ["--a-b=1", "--on=True", "--off=False", "--l=1", "--l=x"]),
        (["args_booleans=flag"], ["--a_b=1", "--on", "--l=1", "--l=x"]),
        (["args_lists=space"], ["--a_b=1", "--on=True", "--off=False", "--l", "1", "x"]),
        (["args_lists=comma"], ["--a_b=1", "--on=True", "--off=False", "--l=1,x"]),
        (["args_style=hydra"], ["a_b=1", "on=true", "off=false", "l=[1,x]"]),
        (["args_style=none"], []),
        (["args_style=env"], []),
    ],
)
def test_arguments_are_written_in_the_scripts_style(desk, style, expected):
    args = ["args.a_b=1", "args.on=true", "args.off=false", "args.l=[1,x]", "args.gone=null"]
    assert desk.script_words("script=train.py", *args, *style) == expected


def test_arguments_can_travel_in_the_environment(desk):
    env = desk.plan("script=train.py", "args_style=env", "args.model.dim=8", "args.l=[1,x]")["plan"]["env"]
    assert (env["MODEL_DIM"], env["L"]) == ("8", "1,x")


def test_an_argument_with_dashes_is_one(desk):
    assert desk.script_words("script=train.py", "args.learning-rate=3") == ["--learning-rate=3"]
