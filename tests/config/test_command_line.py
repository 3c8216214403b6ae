"""The command line before Hydra sees it."""

from __future__ import annotations

import pytest

from runctl.config.argv import parse
from runctl.config.schemas import FREE_MAPS, LaunchConfig
from runctl.errors import ConfigError


def test_flags_come_first_and_overrides_keep_their_order():
    assert parse(["b=1", "-m", "a=2", "--cfg=job"][:3]).words == ("-m", "b=1", "a=2")


def test_a_flag_keeps_its_value():
    assert parse(["a=1", "--cfg", "job", "--package", "x", "b=2"]).words == (
        "--cfg",
        "job",
        "--package",
        "x",
        "a=1",
        "b=2",
    )
    assert parse(["--info", "defaults", "a=1"]).words == ("--info", "defaults", "a=1")
    assert parse(["--info", "a=1"]).words == ("--info", "a=1")


@pytest.mark.parametrize("word", ["--lr", "--lr=3", "-x", "-5", "--config-name", "-cp", "--multi"])
def test_an_unknown_option_is_answered_with_where_it_belongs(word):
    with pytest.raises(ConfigError, match="behind --, as in `runctl-launch -- train"):
        parse(["script=train.py", word])


@pytest.mark.parametrize("words", [["-m", "--cfg", "job"], ["--cfg=job", "--info"], ["-m", "--multirun"]])
def test_flags_that_do_not_go_together_are_refused(words):
    with pytest.raises(ConfigError, match="do not go together"):
        parse(words)


def test_resolve_without_cfg_is_refused():
    with pytest.raises(ConfigError, match="--cfg job"):
        parse(["--resolve"])


def test_a_script_typed_bare_is_answered_with_how_it_is_written(desk):
    text = desk.refusal("train.py")
    assert "script=train.py" in text
    assert "runctl-launch -- train.py" in text
    assert "KEY=VALUE" in desk.refusal("train")


def test_a_plugin_is_turned_off_as_in_pytest():
    line = parse(["-p", "no:cost", "a=1", "-p", "no:git"])
    assert (line.words, line.disabled) == (("a=1",), ("cost", "git"))


@pytest.mark.parametrize("words", [["-p"], ["-p", "cost"], ["-p", "no:"]])
def test_a_plugin_option_that_says_something_else_is_refused(words):
    with pytest.raises(ConfigError, match="-p no:NAME"):
        parse(words)


@pytest.mark.parametrize(
    ("typed", "passed"),
    [
        ("+platform=aws", "platform=aws"),
        ("++platform=aws", "platform=aws"),
        ("+trainer=ddp", "trainer=ddp"),
        ("+args.x=1", "args.x=1"),
        ("+platform.args.x=1", "platform.args.x=1"),
        ("+trainer.lr=1", "+trainer.lr=1"),
        ("+experiment=x", "+experiment=x"),
        ("args.x=+platform=aws", "args.x=+platform=aws"),
        ("~args.x", "~args.x"),
    ],
)
def test_a_needless_plus_is_taken_away(typed, passed):
    assert parse([typed]).words == (passed,)


@pytest.mark.parametrize("path", FREE_MAPS)
def test_every_free_map_does_without_plus(path):
    assert parse([f"+{path}.new=1"]).words == (f"{path}.new=1",)


def test_a_typed_argument_can_be_taken_away(desk):
    desk.project("script: train.py\nargs: {lr: 1, wd: 2}\n")
    assert desk.args("~args.wd") == {"lr": 1}


def test_a_plus_before_a_key_that_exists_is_answered_shortly(desk):
    assert "leave the + away" in desk.refusal("script=train.py", "+dry_run=true")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], True),
        (["platform=local"], True),
        (["+platform=local"], True),
        (["platform=aws"], False),
        (["dry_run=true"], False),
        (["dry_run=false"], True),
        (["explain=true"], False),
        (["--cfg", "job"], False),
        (["--help"], False),
        (["-m", "args.x=1,2"], False),
        (["--", "--help"], True),
        (["args.dry_run=true"], True),
    ],
)
def test_what_launches_here_is_guessed_from_the_words(words, expected):
    assert parse(words).launches_here() is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("defaults:\n  - override /trainer: ddp\n", True),
        ("defaults:\n- trainer: ddp\n", True),
        ("defaults:\n  - override /trainer: single\n", False),
        ("script: ddp\n", False),
    ],
)
def test_torchrun_is_guessed_from_the_projects_file(tmp_path, text, expected):
    file = tmp_path / "runctl.yaml"
    file.write_text(text)
    assert parse([]).needs_torchrun([file]) is expected
    assert parse(["trainer=ddp"]).needs_torchrun([file])
    assert not parse(["trainer=single"]).needs_torchrun([file])


def test_help_shows_examples_groups_and_every_key(desk):
    desk.project("kind: ddp\n", "runctl/trainer/mine.yaml")
    out, err = desk.run("--help")
    assert "runctl-launch trainer=ddp -- train.py --lr 0.1" in out
    assert "mine" in out
    for key in LaunchConfig.__dataclass_fields__:
        assert f"\n{key}:" in out
    assert err == ""


@pytest.mark.parametrize("words", [["-m", "--help"], ["--help", "trainer=ddp"], ["--help", "--cfg", "job"], ["-h"]])
def test_help_is_given_whatever_else_is_typed(desk, words):
    assert "KEY=VALUE" in desk.run(*words)[0]


def test_the_composed_configuration_can_be_printed(desk):
    out, _ = desk.run("--cfg", "job", "script=train.py", "trainer=ddp")
    assert "kind: ddp" in out
    assert "hydra:" not in out
