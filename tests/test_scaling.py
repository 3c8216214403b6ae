"""Multipliers: base → effective."""

from __future__ import annotations

import pytest

from runctl.errors import ConfigError
from runctl.scaling import OUTRIGHT, Argument, describe, scale

FILE = "conf/runctl.yaml"
PAIR = {"batch_size": 64, "learning_rate": 0.001}
FACTORS = {"batch_size": 4, "learning_rate": 4.0}


def effective(args, multipliers, sources=None, **options):
    sources = {name: FILE for name in args} | (sources or {})
    return {name: arg.effective for name, arg in scale(args, sources, multipliers, **options).items()}


def test_base_multiplier_effective_and_source_are_kept():
    assert scale(PAIR, {name: FILE for name in PAIR}, FACTORS) == {
        "batch_size": Argument(64, 4, 256, FILE),
        "learning_rate": Argument(0.001, 4.0, 0.004, FILE),
    }


def test_the_order_of_the_arguments_is_kept():
    args = {"z": 1, "learning_rate": 0.1, "a": 2, "batch_size": 3}
    assert list(scale(args, {}, FACTORS)) == list(args)


@pytest.mark.parametrize(
    ("base", "factor", "scaled"),
    [
        (64, 4.0, 256),
        (3, 1.5, 5),
        (5, 0.5, 3),
        (1, 0.1, 1),
        (-3, 1.5, -5),
        (-1, 0.1, -1),
        (0, 4, 0),
        (10**20, 3, 3 * 10**20),
    ],
)
def test_an_integer_stays_one_and_never_becomes_zero(base, factor, scaled):
    [value] = effective({"n": base}, {"n": factor}).values()
    assert value == scaled
    assert isinstance(value, int)


@pytest.mark.parametrize(
    ("base", "factor", "scaled"), [(0.1, 3, 0.3), (1e-3, 4, 0.004), (2.0, 2, 4.0), (-0.7, 3, -2.1)]
)
def test_a_float_is_the_number_a_person_expects(base, factor, scaled):
    [value] = effective({"x": base}, {"x": factor}).values()
    assert value == scaled
    assert isinstance(value, float)


@pytest.mark.parametrize("source", ["command line", "sweep", OUTRIGHT])
@pytest.mark.parametrize("name", ["batch_size", "learning_rate"])
def test_a_pair_moves_together_or_not_at_all(name, source):
    assert effective(PAIR, FACTORS, {name: source}) == PAIR


def test_an_unpaired_argument_moves_while_a_pair_is_held():
    args = {**PAIR, "epochs": 2}
    assert effective(args, {**FACTORS, "epochs": 3}, {"batch_size": "sweep"}) == {**PAIR, "epochs": 6}


def test_the_other_names_of_a_pair_are_held_together_too():
    args = {"per_device_train_batch_size": 8, "lr": 0.1}
    assert effective(args, FACTORS) == {"per_device_train_batch_size": 32, "lr": 0.4}
    assert effective(args, FACTORS, {"lr": "command line"}) == args


def test_an_exact_name_is_preferred_over_another_of_its_family():
    assert effective({"lr": 1.0, "learning_rate": 1.0, "batch_size": 1}, FACTORS) == {
        "lr": 1.0,
        "learning_rate": 4.0,
        "batch_size": 4,
    }


def test_of_two_factors_for_one_argument_the_later_counts():
    assert effective({"lr": 1.0, "bs": 1}, {**FACTORS, "lr": 2.0}) == {"lr": 2.0, "bs": 4}
    assert effective({"lr": 1.0, "bs": 1}, {**FACTORS, "lr": None}) == {"lr": 1.0, "bs": 4}


@pytest.mark.parametrize("rule", ["linear", "sqrt"])
def test_a_rule_derives_nothing_for_a_factor_turned_off(rule):
    assert effective(PAIR, {**FACTORS, "learning_rate": None}, rule=rule) == {**PAIR, "batch_size": 256}
    assert effective(PAIR, {**FACTORS, "batch_size": None}, rule=rule) == PAIR


def test_the_linear_rule_takes_the_batch_sizes_factor():
    assert effective(PAIR, {"bs": 8}, rule="linear") == {"batch_size": 512, "learning_rate": 0.008}


def test_the_square_root_rule_takes_its_root():
    assert effective(PAIR, {"batch_size": 9, "lr": 100}, rule="sqrt") == {"batch_size": 576, "learning_rate": 0.003}


def test_rule_none_scales_nothing_yet_refuses_a_wrong_factor():
    assert effective(PAIR, FACTORS, rule="none") == PAIR
    with pytest.raises(ConfigError):
        effective(PAIR, {"batch_size": 0}, rule="none")


def test_respect_overrides_false_still_leaves_what_a_platform_sets_outright():
    sources = {"batch_size": "command line", "learning_rate": "sweep"}
    assert effective(PAIR, FACTORS, sources, respect_overrides=False) == {"batch_size": 256, "learning_rate": 0.004}
    assert effective({"epochs": 5}, {"epochs": 2}, {"epochs": OUTRIGHT}, respect_overrides=False) == {"epochs": 5}


def test_strict_names_all_without_argument_but_not_those_turned_off():
    with pytest.raises(ConfigError, match="multipliers of warmup, clip; args has batch_size"):
        effective(PAIR, {"warmup": 2, "clip": 3, "off": None, "batch_size": None}, strict=True)


@pytest.mark.parametrize("value", ["64", True, [1, 2]])
def test_an_argument_that_is_no_number_is_refused(value):
    with pytest.raises(ConfigError, match=r"is not a number; turn the multiplier off with multipliers\.n=null"):
        effective({"n": value}, {"n": 2})


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf"), "4", True, {"a": 1}])
def test_a_factor_that_is_no_number_above_zero_is_refused(factor):
    with pytest.raises(ConfigError, match=r"multipliers\.n="):
        effective({}, {"n": factor})


def test_the_summary_shows_what_was_scaled_and_what_was_left():
    arguments = scale({**PAIR, "epochs": 2}, {"epochs": "sweep"}, {**FACTORS, "epochs": 2})
    assert describe("aws", arguments) == (
        "aws: batch_size 64 × 4 = 256, learning_rate 0.001 × 4 = 0.004, epochs 2 left (swept)"
    )
    assert describe("aws", scale(PAIR, {}, {})) is None
