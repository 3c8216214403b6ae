"""Maps that take new keys as they come, and the typos that are caught all the same."""

from __future__ import annotations

import pytest

FREE = [
    "args.new=1",
    "args.model.dim=5",
    "env.NEW=1",
    "secrets.NEW=env:NEW",
    "tags.new=a",
    "multipliers.new=2",
    "multipliers.model.dim=2",
    "trainer.env.NEW=1",
    "platform.multipliers.new=2",
    "platform.args.new=2",
]


@pytest.mark.parametrize("multirun", [[], ["-m"]], ids=["one", "many"])
@pytest.mark.parametrize("plus", ["", "+", "++"], ids=["bare", "plus", "plusplus"])
def test_a_new_key_needs_no_plus(desk, plus, multirun):
    desk.plan(*multirun, "script=train.py", *(plus + word for word in FREE))


def test_a_plus_before_a_key_that_a_file_gives_is_no_error(desk):
    desk.project("script: train.py\nargs: {lr: 1}\n")
    assert desk.args("+args.lr=2") == {"lr": 2}


def test_nested_arguments_are_added_and_replaced(desk):
    desk.project("script: train.py\nargs: {model: {dim: 8, depth: 2}}\n")
    assert desk.args("args.model.dim=5", "args.model.act.kind=gelu") == {
        "model.dim": 5,
        "model.depth": 2,
        "model.act.kind": "gelu",
    }


def test_new_keys_can_be_swept(desk):
    plans = desk.plans("-m", "script=train.py", "args.model.dim=5,6")
    assert [plan["args"]["model.dim"]["effective"] for plan in plans] == [5, 6]


def test_flags_may_stand_between_overrides(desk):
    assert len(desk.plans("script=train.py", "-m", "args.x=1,2")) == 2


def test_variables_reach_the_ranks(desk):
    env = desk.plan("script=train.py", "env.A=x y", "trainer.env.B=2", "env.C=null", "env.D=true")["plan"]["env"]
    assert (env["A"], env["B"], env["D"]) == ("x y", "2", "true")
    assert "C" not in env


@pytest.mark.parametrize("word", ["trainer.lrr=3", "+trainer.lrr=3", "++trainer.lrr=3"])
def test_a_typo_on_the_command_line_names_key_and_valid_ones(desk, word):
    text = desk.refusal("script=train.py", word)
    assert "trainer.lrr: no such key" in text
    assert "max_restarts, nnodes, nproc_per_node" in text


@pytest.mark.parametrize("word", ["trainer.max_restart=3", "+trainer.max_restart=3"])
def test_a_near_miss_is_answered_with_the_right_key(desk, word):
    assert "did you mean trainer.max_restarts?" in desk.refusal("script=train.py", word)


def test_a_typo_is_caught_under_multirun(desk):
    assert "trainer.lrr: no such key" in desk.refusal("-m", "script=train.py", "args.x=1,2", "+trainer.lrr=3")


def test_an_argument_without_args_is_answered_with_how_it_is_written(desk):
    assert "args.lr=…" in desk.refusal("script=train.py", "lr=0.1")


def test_a_key_below_a_value_is_unknown(desk):
    assert "script is one value" in desk.refusal("script.name=train.py")


def test_a_map_takes_no_value(desk):
    assert "write args.KEY=VALUE" in desk.refusal("script=train.py", "args=3")


def test_a_typo_in_the_projects_file_names_the_file(desk):
    desk.project("script: train.py\nscirpt: x\n")
    assert desk.refusal().startswith("conf/runctl.yaml: scirpt: no such key; did you mean script?")


def test_a_nested_typo_in_the_projects_file_names_the_valid_keys(desk):
    desk.project("script: train.py\ntrainer: {lrr: 3}\n")
    text = desk.refusal()
    assert text.startswith("conf/runctl.yaml: trainer.lrr: no such key")
    assert "nproc_per_node" in text


def test_a_typo_in_the_users_file_names_the_file(desk):
    desk.user("trainer: {lrr: 3}\n")
    assert desk.refusal("script=train.py").startswith("~/.config/runctl/config.yaml: trainer.lrr: no such key")


def test_a_typo_in_a_group_of_the_projects_names_the_file(desk):
    desk.project("kind: ddp\nnprocs: 3\n", "runctl/trainer/two.yaml")
    assert desk.refusal("script=train.py", "trainer=two").startswith("trainer/two.yaml: trainer.nprocs: no such key")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("trainer.nnodes=abc", "trainer.nnodes: Value 'abc' of type 'str' could not be converted to Integer"),
        ("output=xml", "output: Invalid value 'xml', expected one of [text, json]"),
        ("scaling.rule=cubic", "expected one of [explicit, linear, sqrt, none]"),
        ("dry_run=perhaps", "dry_run: Value 'perhaps'"),
        ("multipliers.lr=abc", "multipliers.lr=abc: a multiplier is a number above 0"),
    ],
)
def test_a_wrong_type_names_key_and_value(desk, word, told):
    assert told in desk.refusal("script=train.py", word)


def test_a_wrong_type_in_a_file_names_the_file(desk):
    desk.project("script: train.py\ntrainer: {nnodes: abc}\n")
    assert desk.refusal().startswith("conf/runctl.yaml: trainer.nnodes: Value 'abc'")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("trainer=dpd", "trainer=dpd: no such trainer; did you mean trainer=ddp? (there are ddp, single)"),
        ("platform=awz", "platform=awz: no such platform; did you mean platform=aws? (there are aws, local, runpod)"),
        ("platform=null", "platform and trainer take the name of an option"),
        ("trainer=3", "platform and trainer take the name of an option"),
        ("+platform=gcp", "platform=gcp: no such platform (there are aws, local, runpod)"),
        ("platform.kind=gcp", "platform.kind=gcp: no such platform; there are local, aws, runpod"),
    ],
)
def test_an_unknown_option_names_the_known_ones(desk, word, told):
    assert told in desk.refusal("script=train.py", word)


ITEM = "{from: s3://bucket/data, to: data}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trainer: ddp", 'trainer: ddp chooses an option; write "defaults: [override /trainer: ddp]"'),
        ("platform: aws", 'platform: aws chooses an option; write "defaults: [override /platform: aws]"'),
        ("drill: spot", 'drill: spot chooses an option; write "defaults: [override /drill: spot]"'),
        (
            "platform:",
            "platform holds keys of its own (args, kind, mean_time_to_interruption, multipliers) and takes no",
        ),
        ("tags: [a, b]", "tags holds keys of its own and takes no list; write tags: {KEY: VALUE}"),
        ("args: [--lr, 3]", "write args: {KEY: VALUE}; words without a key go into argv"),
        ("trainer: {env: [a]}", "trainer.env holds keys of its own and takes no list; write env: {KEY: VALUE}"),
        ("argv: fit", "argv takes a list; write argv: [fit]"),
        ("argv:", "argv takes a list; write argv: []"),
        ("data: {inputs: [data]}", f"data.inputs[0]=data: write {ITEM}"),
        ("data: {inputs: data}", f"data.inputs takes a list; write inputs: [{ITEM}]"),
        ("data: {inputs: {from: a, to: b}}", "data.inputs takes a list; write inputs: [{from: a, to: b}]"),
        ("notify: slack://token", "notify takes a list; write notify: [env:NAME]"),
    ],
)
def test_a_value_of_the_wrong_shape_in_a_file_names_its_key_and_the_right_one(desk, text, told):
    desk.project(f"script: train.py\n{text}\n")
    refused = desk.refusal()
    assert refused.startswith("conf/runctl.yaml: ") and told in refused
    assert "token" not in refused, "an address for notifications is a secret"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("argv=fit", "argv takes a list; write 'argv=[fit]'"),
        ("++plugins.disable=cost", "plugins.disable takes a list; write 'plugins.disable=[cost]'"),
        ("notify=env:X", "notify takes a list; write 'notify=[env:X]'"),
        ("notify=slack://token", "notify takes a list; write 'notify=[env:NAME]'"),
        ("data.inputs=[data]", f"data.inputs[0]=data: write {ITEM}"),
        ("data=[a]", "data holds keys of its own (inputs, outputs) and takes no list; write data.KEY=VALUE"),
        ("args=[fit]", "args holds keys of its own and takes no list; write args.KEY=VALUE; words without a key go"),
    ],
)
def test_a_value_of_the_wrong_shape_that_was_typed_is_answered_with_the_right_one(desk, word, told):
    assert desk.refusal("script=train.py", word).startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("platform: aws", 'platform: aws chooses an option; write "defaults: [override /platform: aws]"'),
        ("tags: [a]", "holds a list where keys belong"),
        ("data: {inputs: [a]}", "a list holds words where mappings belong"),
    ],
)
def test_a_value_of_the_wrong_shape_in_a_group_names_the_file(desk, text, told):
    desk.project(f"# @package _global_\n{text}\n", "runctl/experiment/big.yaml")
    assert desk.refusal("script=train.py", "+experiment=big").startswith(f"experiment/big.yaml: {told}")


def test_a_list_of_a_platforms_says_that_it_is_one(desk):
    told = "platform.zones takes a list; write platform.zones=[…]"
    assert desk.refusal("script=train.py", "platform=aws", "platform.zones=a") == told
