"""Values with spaces, quotes, `$()`, newlines and unicode reach the script byte for byte."""

from __future__ import annotations

import random
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from runctl.arguments import ArgumentStyle, quote_for_hydra, render_argv

NASTY = [
    "",
    " ",
    "two words",
    "it's",
    'say "hi"',
    "'\"'",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "a\nb",
    "\n",
    "tab\there",
    "größe-模型-🚀",
    "${x}",
    "${oc.env:HOME}",
    "\\${x}",
    "\\\\${x}",
    "${",
    "$",
    "back\\slash",
    "end\\",
    "end\\\\",
    "\\",
    "\\'",
    "\\\n",
    "a=b",
    "[a, b=c]",
    "{a: 1}",
    "a,b",
    "a:b",
    "(x)",
    "!#&~%^*|<>?",
    "null",
    "true",
    "1e10",
    "1_000",
    "007",
    "-5",
    "--flag",
    "???",
    "choice(1,2)",
]


def strings(count: int) -> list[str]:
    """Nasty strings and random joins of their most awkward pieces, the same ones each time."""
    dice = random.Random(0)
    pieces = ["'", '"', "\\", "$", "{", "}", "a", " ", "\n", ",", "=", "[", ":", "ü", "${", "${a}", "\\${", "#", "\t"]
    return NASTY + ["".join(dice.choices(pieces, k=dice.randint(1, 8))) for _ in range(count)]


def read_back(word: str) -> object:
    """What Hydra makes of one override, interpolations resolved."""
    [override] = OverridesParser.create().parse_overrides([word])
    cfg = OmegaConf.create({})
    OmegaConf.update(cfg, str(override.key_or_group), override.value())
    return next(iter(OmegaConf.to_container(cfg, resolve=True).values()))


def test_quoted_strings_are_read_back_unchanged():
    for value in strings(1500):
        if value != "???":  # OmegaConf's own word for a value that is missing; it has no escape
            assert read_back(f"key={quote_for_hydra(value)}") == value


def test_quoted_values_reach_the_script_byte_for_byte(desk):
    values = [value for value in NASTY if value != "???"]
    words = desk.script_words(
        "script=train.py", *(f"args.k{number}={quote_for_hydra(value)}" for number, value in enumerate(values))
    )
    assert words == [f"--k{number}={value}" for number, value in enumerate(values)]


def test_quoted_values_can_be_swept(desk):
    values = ["a,b", "it's", "${x}", "end\\"]
    plans = desk.plans("-m", "script=train.py", "args.x=" + ",".join(map(quote_for_hydra, values)))
    assert [plan["args"]["x"]["effective"] for plan in plans] == values


def test_a_tail_reaches_the_script_byte_for_byte(desk):
    assert desk.script_words("script=train.py", "--", "--", *NASTY) == ["--", *NASTY]


def test_values_reach_the_environment_byte_for_byte(desk):
    values = [value for value in NASTY if value != "???"]
    env = desk.plan(
        "script=train.py", *(f"env.K{number}={quote_for_hydra(value)}" for number, value in enumerate(values))
    )["plan"]["env"]
    assert [env[f"K{number}"] for number in range(len(values))] == values


def test_values_in_a_file_reach_the_script_byte_for_byte(desk):
    desk.project("script: train.py\nargs:\n  a: \"it's $(touch pwned)\\n\"\n  b: 'größe=1 # no'\n")
    assert desk.script_words() == ["--a=it's $(touch pwned)\n", "--b=größe=1 # no"]


def test_a_hydra_script_reads_back_what_it_is_given():
    values = [value for value in strings(300) if value != "???"]
    words = render_argv({f"k{number}": value for number, value in enumerate(values)}, ArgumentStyle("hydra"))
    assert [read_back(word) for word in words] == values


@pytest.mark.parametrize("value", [[1, "a b", None, True, [2.5]], {"a": "x y", "b": 1}, 1e-05, float("inf"), -3])
def test_a_hydra_script_reads_back_lists_maps_and_numbers(value):
    [word] = render_argv({"key": value}, ArgumentStyle("hydra"))
    assert read_back(word) == value


@pytest.mark.parametrize("value", ["a=b c", "ü", "x & y", "!x", "~x", "#x", "it's", "[a=b", "a\nb", "x{y", "(x"])
def test_a_value_that_hydra_cannot_read_is_answered_with_a_form_that_works(desk, value):
    text = desk.refusal("script=train.py", f"args.x={value}", "dry_run=true")
    assert "Hydra cannot read this value" in text
    [word] = shlex.split(text.rpartition("quote it: ")[2])
    assert desk.script_words("script=train.py", word) == [f"--x={value}"]


def test_a_list_that_hydra_cannot_read_is_answered_with_a_list(desk):
    text = desk.refusal("script=train.py", "args.x=[1,a=b,ü]", "dry_run=true")
    [word] = shlex.split(text.rpartition("quote it: ")[2])
    assert desk.args("script=train.py", word) == {"x": [1, "a=b", "ü"]}


def test_several_values_without_m_are_answered_with_what_they_may_mean(desk):
    text = desk.refusal("script=train.py", "args.x=1,2")
    assert "add -m" in text
    listed, string = shlex.split(text.partition(": a list ")[2].replace(", a string", ""))
    assert desk.args("script=train.py", listed) == {"x": [1, 2]}
    assert desk.args("script=train.py", string) == {"x": "1,2"}
