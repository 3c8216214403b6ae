"""Multipliers as a user meets them: in files, on the command line, swept, and in what a launch says of them."""

from __future__ import annotations

import pytest

PROJECT = """
script: train.py
args:
  batch_size: 64
  learning_rate: 1e-3
  epochs: 10
"""
UNSCALED = {"batch_size": 64, "learning_rate": 0.001, "epochs": 10}
SCALED = {"batch_size": 256, "learning_rate": 0.004, "epochs": 10}


@pytest.fixture(autouse=True)
def project(desk):
    desk.project(PROJECT)


def test_values_from_files_are_scaled(desk):
    assert desk.args("platform=aws") == SCALED
    assert desk.args() == UNSCALED


def test_integers_stay_integers(desk):
    assert isinstance(desk.args("platform=aws", "multipliers.batch_size=1.5")["batch_size"], int)


def test_typed_values_are_not_scaled(desk):
    plan = desk.plan("platform=aws", "args.batch_size=32", "args.learning_rate=1e-2")
    assert plan["args"]["batch_size"] == {
        "base": 32,
        "multiplier": None,
        "effective": 32,
        "source": "command line",
    }
    assert plan["args"]["learning_rate"]["effective"] == 0.01


@pytest.mark.parametrize("word", ["args.batch_size=64", "args.learning_rate=0.001", "args={batch_size: 64}"])
def test_typing_one_of_a_pair_leaves_the_other_alone(desk, word):
    assert desk.args("platform=aws", word) == UNSCALED


def test_a_map_typed_whole_leaves_its_neighbours_scaled(desk):
    assert desk.args("platform=aws", "args={epochs: 3}") == {**SCALED, "epochs": 3}


def test_swept_values_are_not_scaled(desk):
    plans = desk.plans("-m", "platform=aws", "args.learning_rate=0.1,0.01")
    assert [plan["args"]["learning_rate"]["effective"] for plan in plans] == [0.1, 0.01]
    assert {plan["args"]["learning_rate"]["source"] for plan in plans} == {"sweep"}
    assert [plan["args"]["batch_size"]["effective"] for plan in plans] == [64, 64]


def test_a_single_value_typed_beside_a_sweep_is_typed(desk):
    plans = desk.plans("-m", "platform=aws", "args.epochs=1,2", "args.learning_rate=1e-2")
    assert {plan["args"]["learning_rate"]["source"] for plan in plans} == {"command line"}


def test_respect_overrides_false_scales_typed_and_swept_values_too(desk):
    off = "scaling.respect_overrides=false"
    assert desk.args("platform=aws", "args.batch_size=8", off) == {**SCALED, "batch_size": 32}
    plans = desk.plans("-m", "platform=aws", "args.batch_size=1,2", off)
    assert [plan["args"]["batch_size"]["effective"] for plan in plans] == [4, 8]


def test_null_turns_one_off_and_the_other_scales_alone(desk):
    assert desk.args("platform=aws", "multipliers.learning_rate=null") == {**UNSCALED, "batch_size": 256}
    assert desk.args("platform=aws", "multipliers.batch_size=null") == {**UNSCALED, "learning_rate": 0.004}
    assert desk.args("platform=aws", "platform.multipliers.batch_size=null") == {**UNSCALED, "learning_rate": 0.004}


def test_null_under_another_name_of_the_argument_turns_it_off_too(desk):
    desk.project("script: train.py\nargs: {bs: 64, lr: 1e-3}\n")
    assert desk.args("platform=aws") == {"bs": 256, "lr": 0.004}
    assert desk.args("platform=aws", "multipliers.lr=null") == {"bs": 256, "lr": 0.001}


@pytest.mark.parametrize("partner", ["", "learning_rate: null"], ids=["absent", "null"])
def test_a_partner_without_value_leaves_the_other_alone(desk, partner):
    desk.project(f"script: train.py\nargs:\n  batch_size: 64\n  {partner}\n")
    assert desk.args("platform=aws")["batch_size"] == 64
    _, err = desk.run("platform=aws", "explain=true")
    assert "batch_size 64 left (moves together with learning_rate, which is not among args)" in err


def test_the_linear_rule_derives_the_learning_rate(desk):
    assert desk.args("platform=aws", "multipliers.batch_size=8", "scaling.rule=linear") == {
        "batch_size": 512,
        "learning_rate": 0.008,
        "epochs": 10,
    }


def test_the_square_root_rule_derives_the_learning_rate(desk):
    assert desk.args("platform=aws", "scaling.rule=sqrt") == {"batch_size": 256, "learning_rate": 0.002, "epochs": 10}


def test_rule_none_scales_nothing(desk):
    assert desk.args("platform=aws", "scaling.rule=none") == UNSCALED


def test_any_numeric_argument_can_have_one(desk):
    assert desk.args("multipliers.epochs=0.5") == {**UNSCALED, "epochs": 5}


def test_a_nested_argument_can_have_one(desk):
    desk.project("script: train.py\nargs: {model: {dim: 8}}\nmultipliers: {model: {dim: 2}}\n")
    assert desk.args() == {"model.dim": 16}
    assert desk.args("multipliers.model.dim=4") == {"model.dim": 32}


def test_one_whose_argument_is_absent_is_skipped(desk):
    assert desk.args("multipliers.warmup=2") == UNSCALED


def test_strict_names_every_one_without_argument(desk):
    text = desk.refusal("multipliers.warmup=2", "multipliers.clip=3", "scaling.strict=true")
    assert "no argument for the multipliers of warmup, clip; args has batch_size, learning_rate, epochs" in text


@pytest.mark.parametrize("factor", ["0", "-1", "-0.5", "nan", "inf", "true", "abc"])
def test_a_factor_not_above_zero_is_refused(desk, factor):
    text = desk.refusal(f"multipliers.epochs={factor}")
    assert text.startswith("multipliers.epochs=")
    assert "a multiplier is a number above 0 (null turns it off)" in text


def test_a_factor_in_a_file_is_checked_too(desk):
    desk.project(PROJECT + "platform: {multipliers: {batch_size: 0}}\n")
    assert "multipliers.batch_size=0: a multiplier is a number above 0" in desk.refusal()


def test_an_argument_that_is_no_number_says_how_to_turn_it_off(desk):
    desk.project(PROJECT + "  name: big\nmultipliers: {name: 2}\n")
    assert (
        "multipliers.name=2: args.name='big' is not a number; turn the multiplier off with multipliers.name=null"
        in (desk.refusal())
    )
    assert desk.args("multipliers.name=null")["name"] == "big"


# --- arguments that a platform sets outright ---

OUTRIGHT = "kind: aws\nmultipliers: {batch_size: 4, learning_rate: 4.0, epochs: 2}\nargs: {epochs: 50}\n"


def test_a_platform_sets_an_argument_outright(desk):
    desk.project(OUTRIGHT, "runctl/platform/aws.yaml")
    plan = desk.plan("platform=aws")
    assert plan["args"]["epochs"] == {"base": 50, "multiplier": None, "effective": 50, "source": "platform.args"}
    assert desk.args() == UNSCALED


def test_a_platform_can_set_an_argument_that_no_file_has(desk):
    desk.project("kind: aws\nargs: {precision: bf16}\n", "runctl/platform/aws.yaml")
    assert desk.args("platform=aws") == {**UNSCALED, "precision": "bf16"}


def test_a_typed_argument_wins_over_the_platforms(desk):
    desk.project(OUTRIGHT, "runctl/platform/aws.yaml")
    for platform in ("platform=aws", "+platform=aws"):
        assert desk.args(platform, "args.epochs=3")["epochs"] == 3


def test_a_platforms_argument_can_be_typed(desk):
    desk.project(OUTRIGHT, "runctl/platform/aws.yaml")
    plan = desk.plan("platform=aws", "platform.args.epochs=7")
    assert (plan["args"]["epochs"]["effective"], plan["args"]["epochs"]["source"]) == (7, "command line")


def test_one_of_a_pair_set_outright_leaves_the_other_alone(desk):
    desk.project(
        "kind: aws\nmultipliers: {batch_size: 4, learning_rate: 4.0}\nargs: {batch_size: 512}\n",
        "runctl/platform/aws.yaml",
    )
    assert desk.args("platform=aws") == {**UNSCALED, "batch_size": 512}
    _, err = desk.run("platform=aws", "explain=true")
    assert "moves together with batch_size, which is set by the platform" in err


# --- what a launch says ---


def test_a_launch_says_in_one_line_what_it_scaled(desk):
    _, err = desk.run("platform=aws", "dry_run=true")
    assert err == "runctl: aws: batch_size 64 × 4 = 256, learning_rate 0.001 × 4 = 0.004\n"


def test_a_launch_says_what_it_left_and_why(desk):
    _, err = desk.run("platform=aws", "args.batch_size=32", "dry_run=true")
    assert err == (
        "runctl: aws: batch_size 32 left (typed), "
        "learning_rate 0.001 left (moves together with batch_size, which is typed)\n"
    )


def test_a_launch_with_nothing_to_scale_says_nothing(desk):
    assert desk.run("dry_run=true")[1] == ""


def test_explain_prints_a_table(desk, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out, _ = desk.run("platform=aws", "explain=true", "args.epochs=3")
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert rows[0] == ["argument", "base", "multiplier", "effective", "source"]
    assert ["batch_size", "64", "×", "4", "256", "conf/runctl.yaml"] in rows
    assert ["learning_rate", "0.001", "×", "4", "0.004", "conf/runctl.yaml"] in rows
    assert ["epochs", "3", "–", "3", "command", "line"] in rows
    assert max(map(len, out.splitlines())) <= 80


def test_explain_starts_nothing(desk):
    desk.run("explain=true")
    assert not (desk.folder / "runs").exists()
