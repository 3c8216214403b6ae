"""The project's and the user's own configuration, and everything else under ./conf, which is not read."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

import runctl.hooks  # noqa: F401 (its logger exists before any launch)
from runctl.config.compose import project_root

ROOT = Path(__file__).resolve().parents[2]


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_projects_file_names_script_arguments_and_trainer(desk):
    desk.project("defaults: [override /trainer: ddp]\nscript: train.py\nargs: {lr: 1e-3, model: {dim: 8}}\n")
    plan = desk.plan()
    argv = plan["plan"]["argv"]
    assert "torch.distributed.run" in argv
    assert argv[-3:] == [str(desk.folder / "train.py"), "--lr=0.001", "--model.dim=8"]
    assert plan["args"]["lr"]["source"] == "conf/runctl.yaml"


@pytest.mark.parametrize("entry", ["trainer: ddp", "/trainer: ddp", "override trainer: ddp", "override /trainer: ddp"])
def test_a_group_is_chosen_in_any_of_hydras_spellings(desk, entry):
    desk.project(f"defaults:\n- _self_\n- {entry}\nscript: train.py\n")
    assert "torch.distributed.run" in desk.plan()["plan"]["argv"]


def test_the_command_line_chooses_over_the_projects_defaults(desk):
    desk.project("defaults: [override /trainer: ddp]\nscript: train.py\n")
    assert "torch.distributed.run" not in desk.plan("trainer=single")["plan"]["argv"]


def test_a_group_of_the_projects_adds_an_option(desk):
    desk.project("kind: ddp\nnproc_per_node: 3\n", "runctl/trainer/three.yaml")
    assert desk.plan("script=train.py", "trainer=three")["plan"]["nproc_per_node"] == 3


def test_a_group_of_the_projects_replaces_an_option_of_ours(desk):
    desk.project("kind: aws\nargs: {epochs: 50}\n", "runctl/platform/aws.yaml")
    desk.project("script: train.py\nargs: {batch_size: 2, learning_rate: 1.0, epochs: 3}\n")
    assert desk.args("platform=aws") == {"batch_size": 2, "learning_rate": 1.0, "epochs": 50}


def test_a_group_of_the_projects_own_can_be_added(desk):
    desk.project("# @package _global_\nargs: {lr: 3}\n", "runctl/experiment/big.yaml")
    desk.project("script: train.py\nargs: {lr: 1}\n")
    assert desk.args() == {"lr": 1}
    assert desk.args("+experiment=big") == {"lr": 3}


def test_a_group_of_the_projects_own_can_stand_in_its_defaults(desk):
    desk.project("# @package _global_\nargs: {lr: 3}\n", "runctl/experiment/big.yaml")
    desk.project("defaults:\n- experiment: big\nscript: train.py\n")
    assert desk.args() == {"lr": 3}
    assert "did you mean experiment=big?" in desk.refusal("experiment=bigg")


def test_what_a_training_keeps_under_conf_changes_nothing(desk):
    words = ("script=train.py", "run.id=same", "trainer=ddp", "platform=aws")

    def plan():
        planned = desk.plan(*words)
        for key in ("requests", "notes"):  # they tell of the project's files
            del planned["plan"][key]
        return planned

    before = plan()
    for name, text in {
        "config.yaml": "defaults: [nonsense]\nscript: other.py\nunknown: 1\n",
        "trainer/ddp.yaml": "kind: nonsense\nlr: 3\n",
        "trainer/single.yaml": "broken: [\n",
        "platform/aws.yaml": "kind: nonsense\n",
        "platform/mine.yaml": "kind: local\n",
        "hydra/job_logging/disabled.yaml": "nonsense: 1\n",
        "hydra/config.yaml": "nonsense: 1\n",
        "hydra/launcher/basic.yaml": "nonsense: 1\n",
        "runctl_schema.yaml": "nonsense: 1\n",
        "experiment/big.yaml": "# @package _global_\nargs: {lr: 3}\n",
    }.items():
        desk.project(text, name)
    assert plan() == before
    assert desk.plans("-m", "script=train.py", "args.x=1,2")
    assert "no such platform (there are aws, local, runpod)" in desk.refusal("script=train.py", "platform=mine")


def test_user_below_project_below_command_line(desk):
    desk.user("args: {a: user, b: user, c: user}\n")
    desk.project("script: train.py\nargs: {b: project, c: project}\n")
    plan = desk.plan("args.c=typed")
    assert {name: (arg["effective"], arg["source"]) for name, arg in plan["args"].items()} == {
        "a": ("user", "~/.config/runctl/config.yaml"),
        "b": ("project", "conf/runctl.yaml"),
        "c": ("typed", "command line"),
    }


def test_the_projects_choice_of_a_group_wins_over_the_users(desk):
    desk.user("defaults: [override /trainer: ddp, override /platform: runpod]\n")
    desk.project("defaults: [override /platform: aws]\nscript: train.py\n")
    plan = desk.plan()["plan"]
    assert plan["platform"] == "aws"
    assert "torch.distributed.run" in plan["argv"]


def test_the_projects_option_wins_over_the_users_of_that_name(desk):
    desk.user("kind: ddp\nnproc_per_node: 5\n", "trainer/mine.yaml")
    assert desk.plan("script=train.py", "trainer=mine")["plan"]["nproc_per_node"] == 5
    desk.project("kind: ddp\nnproc_per_node: 6\n", "runctl/trainer/mine.yaml")
    assert desk.plan("script=train.py", "trainer=mine")["plan"]["nproc_per_node"] == 6


def test_an_empty_xdg_config_home_is_no_folder(desk, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    (desk.folder / "runctl").mkdir()
    (desk.folder / "runctl" / "config.yaml").write_text("args: {lr: 1}\n")
    assert desk.args("script=train.py") == {}


def test_one_launch_leaves_nothing_for_the_next(desk, monkeypatch, tmp_path):
    desk.project("defaults: [override /platform: aws]\nscript: train.py\nargs: {lr: 1}\n")
    desk.project("kind: ddp\n", "runctl/trainer/mine.yaml")
    desk.user("args: {wd: 1}\n")
    assert desk.args("trainer=mine") == {"lr": 1, "wd": 1}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "train.py").touch()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    plan = desk.plan("script=train.py")
    assert plan["args"] == {}
    assert plan["plan"]["platform"] == "local"
    assert "no such trainer" in desk.refusal("script=train.py", "trainer=mine")


def test_a_refused_launch_leaves_nothing_for_the_next(desk):
    desk.refusal("-m", "script=train.py", "trainer.nnodes=abc")
    desk.refusal("script=train.py", "args.x=ü")
    before, level = dict(os.environ), logging.getLogger().level
    assert desk.plan("script=train.py")["args"] == {}
    assert dict(os.environ) == before
    assert logging.getLogger().level == level
    assert not logging.getLogger("runctl.hooks").disabled, "Hydra's own logging setup turns every logger off"


@pytest.mark.parametrize("words", [[], ["-m", "args.x=1,2"], ["--help"], ["--cfg", "job"], ["explain=true"]])
def test_no_folder_appears(desk, words):
    before = files_below(desk.folder)
    desk.run(*words, "script=train.py", *([] if words[:1] in (["--help"], ["--cfg"]) else ["dry_run=true"]))
    assert files_below(desk.folder) == before


def test_a_launch_from_our_own_checkout_takes_our_file_for_ours(desk, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert desk.plan("script=examples/digits_ddp.py")["args"] == {}


def test_the_working_directory_is_where_the_user_stands(desk, monkeypatch):
    (desk.folder / ".git").mkdir()
    sub = desk.folder / "sub"
    sub.mkdir()
    monkeypatch.chdir(sub)
    plan = desk.plan("script=../train.py", "run.id=one")["plan"]
    assert plan["argv"][-1] == str(desk.folder / "train.py")
    assert plan["env"]["RUNCTL_RUN_DIR"] == str(sub / "runs" / "one")


def test_the_projects_root_is_the_checkout_around_it(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert project_root(tmp_path / "a" / "b") == tmp_path


# --- files that cannot be used ---


def test_broken_yaml_names_file_and_line(desk):
    desk.project("script: train.py\nargs: [a\n")
    text = desk.refusal()
    assert "conf/runctl.yaml, line 3: not readable as YAML: expected" in text
    assert len(text.splitlines()) == 1


def test_broken_yaml_in_a_group_names_file_and_line(desk):
    desk.project("kind: [ddp\nnproc_per_node: 2\n", "runctl/trainer/two.yaml")
    assert "trainer/two.yaml, line 2: not readable as YAML" in desk.refusal("script=train.py", "trainer=two")


def test_a_list_is_no_configuration(desk):
    desk.project("- script: train.py\n")
    assert "conf/runctl.yaml: holds a list; it must be a mapping" in desk.refusal()


def test_a_list_in_a_group_is_no_configuration(desk):
    desk.project("- kind\n", "runctl/trainer/two.yaml")
    assert desk.refusal("script=train.py", "trainer=two").startswith("trainer/two.yaml: holds a list")


def test_bytes_that_are_no_text_in_a_group_are_refused(desk):
    desk.project(b"kind: \xff\n", "runctl/trainer/two.yaml")
    assert "no text in UTF-8" in desk.refusal("script=train.py", "trainer=two")


def test_a_defaults_list_in_a_group_that_is_none_names_the_file(desk):
    desk.project("defaults: ddp\n", "runctl/trainer/two.yaml")
    assert "'trainer/two'" in desk.refusal("script=train.py", "trainer=two")


def test_bytes_that_are_no_text_name_the_file(desk):
    desk.project(b"script: \xff\xfe\n")
    assert desk.refusal("script=train.py").startswith("conf/runctl.yaml: not readable as YAML")
    assert desk.refusal().startswith("conf/runctl.yaml: not readable as YAML"), "also where torchrun is guessed at"


@pytest.mark.parametrize("defaults", ["ddp", "{trainer: ddp}", "[[ddp]]", "[{trainer: ddp, platform: aws}]", "[3]"])
def test_a_defaults_list_that_is_none_says_how_one_is_written(desk, defaults):
    desk.project(f"defaults: {defaults}\nscript: train.py\n")
    text = desk.refusal()
    assert text.startswith("conf/runctl.yaml: defaults")
    assert "- override /trainer: ddp" in text


def test_an_unknown_option_in_defaults_names_the_known_ones(desk):
    desk.project("defaults: [override /trainer: dpd]\nscript: train.py\n")
    assert desk.refusal() == "trainer=dpd: no such trainer; did you mean trainer=ddp? (there are ddp, single)"


def test_an_unknown_group_in_defaults_says_so(desk):
    desk.project("defaults: [override /trainr: ddp]\nscript: train.py\n")
    assert "trainr: only trainer, platform and drill are chosen already" in desk.refusal()
    desk.project("defaults: [trainr: ddp]\nscript: train.py\n")
    assert "there is no trainr/ddp.yaml" in desk.refusal()


def test_a_value_for_args_in_a_file_says_what_it_takes(desk):
    desk.project("script: train.py\nargs: 3\n")
    assert desk.refusal().startswith("conf/runctl.yaml: args holds keys of its own")


@pytest.mark.parametrize("value", ["${nope}", "???"])
def test_a_value_that_leads_nowhere_names_its_key(desk, value):
    desk.project(f"script: train.py\nargs: {{lr: '{value}'}}\n")
    assert desk.refusal().startswith("args.lr: ")


def test_interpolations_are_resolved(desk):
    desk.project("script: train.py\nargs: {a: '${args.b}', b: 4}\n")
    assert desk.args() == {"a": 4, "b": 4}


def test_a_file_that_would_replace_ours_is_refused(desk):
    desk.project("kind: local\n", "runctl/runctl.yaml")
    assert "would replace everything that runctl ships" in desk.refusal("script=train.py")


def test_a_file_with_the_other_ending_is_not_passed_over(desk):
    desk.project("script: train.py\n", "runctl.yml")
    assert "rename it to runctl.yaml" in desk.refusal()


def test_an_empty_file_is_no_error(desk):
    desk.project("")
    desk.user("")
    assert desk.args("script=train.py") == {}
