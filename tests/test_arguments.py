"""Arguments as a script's command line or environment."""

from __future__ import annotations

from runctl.arguments import ArgumentStyle, flatten, quote_for_hydra, render_argv, render_env


def test_nested_arguments_get_dotted_names():
    assert flatten({"a": 1, "m": {"d": 2, "x": {"y": None}}, "l": [1], "none": {}}) == {
        "a": 1,
        "m.d": 2,
        "m.x.y": None,
        "l": [1],
    }


def test_nothing_is_written_for_none():
    for style in ("argparse", "hydra"):
        assert render_argv({"a": None}, ArgumentStyle(style)) == []
    assert render_env({"a": None}, ArgumentStyle("env")) == {}


def test_an_empty_list_is_no_words():
    for lists in ("repeat", "space"):
        assert render_argv({"a": []}, ArgumentStyle(lists=lists)) == []
    assert render_argv({"a": []}, ArgumentStyle("hydra")) == ["a=[]"]


def test_an_empty_string_is_a_value():
    assert render_argv({"a": ""}, ArgumentStyle()) == ["--a="]
    assert render_argv({"a": ""}, ArgumentStyle("hydra")) == ["a=''"]
    assert render_env({"a": ""}, ArgumentStyle("env")) == {"A": ""}


def test_a_string_that_reads_as_another_type_is_quoted_for_hydra():
    words = render_argv({"a": "null", "b": "True", "c": "1", "d": "x.y/z-1", "e": "inf"}, ArgumentStyle("hydra"))
    assert words == ["a='null'", "b='True'", "c='1'", "d=x.y/z-1", "e='inf'"]


def test_a_boolean_in_a_list_is_a_value_even_where_flags_are_asked_for():
    assert render_argv({"a": [True, False]}, ArgumentStyle(booleans="flag")) == ["--a=True", "--a=False"]


def test_environment_names_are_upper_case_and_safe():
    assert render_env({"model.dim-1": 2, "lr": 1e-05, "on": True}, ArgumentStyle("env")) == {
        "MODEL_DIM_1": "2",
        "LR": "1e-05",
        "ON": "True",
    }


def test_only_the_style_env_sets_variables():
    assert render_env({"a": 1}, ArgumentStyle()) == {}
    assert render_argv({"a": 1}, ArgumentStyle("env")) == []


def test_an_interpolation_is_escaped_with_the_backslashes_before_it():
    assert quote_for_hydra("\\${x}") == "'\\\\\\${x}'"
