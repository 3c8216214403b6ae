"""Keys with rules of their own: processes, durations, identity, place, secrets; and the shape of a JSON plan."""

from __future__ import annotations

import json
import re

import pytest

from runctl.durations import parse_duration_s
from runctl.errors import ConfigError


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "true", "null", "[1]"])
def test_a_number_of_processes_that_cannot_be_names_the_valid_ones(desk, value):
    text = desk.refusal("script=train.py", "trainer=ddp", f"trainer.nproc_per_node={value}")
    assert text.startswith("trainer.nproc_per_node=")
    assert "at least 1, or one of auto, gpu, cpu" in text


def test_a_number_of_processes_reaches_torchrun(desk):
    plan = desk.plan("script=train.py", "trainer=ddp", "trainer.nproc_per_node=3")["plan"]
    assert plan["nproc_per_node"] == 3
    assert "--nproc-per-node=3" in plan["argv"]


def test_plain_python_is_one_process(desk):
    assert "use trainer=ddp" in desk.refusal("script=train.py", "trainer.nproc_per_node=2")
    assert desk.plan("script=train.py", "trainer.nproc_per_node=1")["plan"]["nproc_per_node"] == 1


@pytest.mark.parametrize(
    "word", ["trainer.nnodes=2", "trainer.nnodes=0", "trainer.max_restarts=-1", "trainer.omp_threads=0"]
)
def test_a_trainers_number_out_of_range_is_refused(desk, word):
    assert desk.refusal("script=train.py", "trainer=ddp", word).startswith(word)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("24h", 86400), ("2d", 172800), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25)],
)
def test_durations_are_read_as_seconds(text, seconds):
    assert parse_duration_s(text, "key") == seconds


@pytest.mark.parametrize("text", ["", "90", "h", "-5m", "5 minutes", "1h 30m x", "0s", "1e3s", "5mm", "m5"])
def test_what_is_no_duration_names_key_and_value(text):
    with pytest.raises(ConfigError, match=re.escape(f"limits.max_time={text}: ")):
        parse_duration_s(text, "limits.max_time")


def test_a_limit_is_written_as_a_duration(desk):
    assert desk.plan("script=train.py", "limits.max_time=30m")
    assert "limits.max_time=90: write a duration with its unit" in desk.refusal("script=train.py", "limits.max_time=90")


def test_the_name_is_the_scripts_and_the_id_begins_with_it(desk):
    env = desk.plan("script=train.py")["plan"]["env"]
    assert env["RUNCTL_RUN_NAME"] == "train"
    assert re.fullmatch(r"train-\d{8}-\d{6}-[a-z]{4}", env["RUNCTL_RUN_ID"])


@pytest.mark.parametrize(
    ("name", "word"), [("My Run_2", "my-run-2"), ("größe", "gr-e"), ("模型", "run"), ("-x-", "x"), ("a" * 80, "a" * 32)]
)
def test_any_name_makes_a_safe_id(desk, name, word):
    env = desk.plan("script=train.py", f"run.name='{name}'")["plan"]["env"]
    assert env["RUNCTL_RUN_NAME"] == name
    assert re.fullmatch(rf"{word}-\d{{8}}-\d{{6}}-[a-z]{{4}}", env["RUNCTL_RUN_ID"])


def test_the_name_of_a_module_is_its_last_part(desk):
    assert desk.plan("module=pkg.sub.fit")["plan"]["env"]["RUNCTL_RUN_NAME"] == "fit"


@pytest.mark.parametrize("run_id", ["A", "a_b", "-a", "a/b", "a.b", "a b", "ä", "../a", "a" * 64])
def test_an_id_that_is_no_safe_name_is_refused(desk, run_id):
    assert "lower-case letters, digits and dashes" in desk.refusal("script=train.py", f"run.id='{run_id}'")


@pytest.mark.parametrize("run_id", ["a", "0", "a-1", "123", "a" * 63])
def test_a_safe_id_is_taken(desk, run_id):
    assert desk.plan("script=train.py", f"run.id={run_id}")["plan"]["env"]["RUNCTL_RUN_ID"] == run_id


def test_one_id_for_several_runs_is_refused(desk):
    assert "-m makes several runs" in desk.refusal("-m", "script=train.py", "run.id=one", "args.x=1,2")
    plans = desk.plans("-m", "script=train.py", "run.id=one,two")
    assert [plan["plan"]["env"]["RUNCTL_RUN_ID"] for plan in plans] == ["one", "two"]


def test_several_runs_get_ids_of_their_own(desk):
    plans = desk.plans("-m", "script=train.py", "args.x=1,2,3")
    assert len({plan["plan"]["env"]["RUNCTL_RUN_ID"] for plan in plans}) == 3


def test_a_root_is_a_path_or_a_url(desk, monkeypatch):
    def run_dir(*words: str) -> str:
        return desk.plan("script=train.py", "run.id=one", *words)["plan"]["env"]["RUNCTL_RUN_DIR"]

    monkeypatch.setenv("HOME", "/home/somebody")
    assert run_dir() == f"{desk.folder}/runs/one"
    assert run_dir("run.root=/data/runs") == "/data/runs/one"
    assert run_dir("run.root='~/runs'") == "/home/somebody/runs/one"
    assert run_dir("run.root=s3://bucket/runs/") == "s3://bucket/runs/one"
    assert "run.root is empty" in desk.refusal("script=train.py", "run.root=")


@pytest.mark.parametrize("root", ["train.py/runs", "/proc/runctl-cannot-write-here"])
def test_a_root_that_cannot_be_written_is_refused(desk, root):
    text = desk.refusal("script=train.py", f"run.root={root}")
    assert root in text
    assert "choose another place with run.root=" in text


def test_for_programs_there_is_one_object(desk):
    one, _ = desk.run("script=train.py", "dry_run=true", "output=json")
    assert list(json.loads(one)) == ["schema", "plan", "args"]
    all_of_them, _ = desk.run("-m", "script=train.py", "args.x=1,2", "dry_run=true", "output=json")
    told = json.loads(all_of_them.splitlines()[-1])
    assert (told["schema"], [plan["args"]["x"]["effective"] for plan in told["plans"]]) == (1, [1, 2])
    plugins, _ = desk.run("script=train.py", "plugins.list=true", "output=json")
    assert {"name", "source", "hooks"} == set(json.loads(plugins)["plugins"][0])


@pytest.mark.parametrize("reference", ["hunter2", "env:", "env:A B", "'sk-${x}'", "{a: hunter2}", "[hunter2]", "''"])
def test_a_secret_is_a_reference_and_never_shown(desk, reference):
    text = desk.refusal("script=train.py", f"secrets.TOKEN={reference}")
    assert "secrets.TOKEN: write where the secret is kept, as in secrets.TOKEN=env:" in text
    assert "hunter2" not in text


def test_a_secret_stays_out_of_the_plan(desk, monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter2")
    out, err = desk.run("script=train.py", "secrets.TOKEN=env:TOKEN", "dry_run=true", "output=json")
    assert "hunter2" not in out + err


@pytest.mark.parametrize("words", [(), ("-m", "args.x=1,2")])
def test_a_secret_that_is_not_set_is_refused_before_a_run_begins(desk, words):
    text = desk.refusal(*words, "script=train.py", "secrets.TOKEN=env:NO_TOKEN_HERE")
    assert text == "secrets.TOKEN=env:NO_TOKEN_HERE: NO_TOKEN_HERE is not set in the environment"
    assert not (desk.folder / "runs").exists()


def test_a_plan_needs_no_secret_and_tells_of_one_that_is_not_set(desk):
    _, err = desk.run("-m", "script=train.py", "args.x=1,2", "secrets.TOKEN=env:NO_TOKEN_HERE", "dry_run=true")
    assert err.count("secrets.TOKEN=env:NO_TOKEN_HERE: NO_TOKEN_HERE is not set in the environment; the launch") == 1


def composed(desk, monkeypatch, *words):
    """The spec of a launch that is not carried out."""
    seen = []
    monkeypatch.setattr("runctl.hooks.Hooks.modify_spec", lambda self, spec, platform: seen.append(spec) or spec)
    desk.run("script=train.py", "dry_run=true", *words)
    return seen[0]


def test_addresses_of_notifications_are_secrets_of_the_agent(desk, monkeypatch):
    words = ("secrets.CHAT=env:MY_CHAT", "secrets.TOKEN=env:TOKEN", "notify=[CHAT,env:MAIL,ssm:/team/phone]")
    spec = composed(desk, monkeypatch, *words)
    assert spec.notify == ("CHAT", "NOTIFY_MAIL", "NOTIFY__team_phone")
    assert spec.secrets_for("agent") == {
        "CHAT": "env:MY_CHAT", "NOTIFY_MAIL": "env:MAIL", "NOTIFY__team_phone": "ssm:/team/phone",
    }  # fmt: skip
    assert spec.secrets_for("worker") == {"TOKEN": "env:TOKEN"} and spec.secrets_for("setup") == {}
    spec = composed(desk, monkeypatch, *words, "secrets_scope.CHAT=both")
    assert spec.secrets_for("setup") == {"CHAT": "env:MY_CHAT"}, "whoever asks for it gets it, too"


@pytest.mark.parametrize("word", ["slack://hunter2", "'json://user:hunter2@host'", "'hunter2 x'"])
def test_an_address_itself_is_refused_and_never_shown(desk, word):
    text = desk.refusal("script=train.py", f"notify=[{word}]")
    assert "notify=[env:SLACK_URL]" in text and "hunter2" not in text


def test_a_name_of_no_secret_is_refused(desk):
    assert "there is no secrets.CHAT" in desk.refusal("script=train.py", "notify=[CHAT]")


def test_the_json_plan_has_its_documented_shape(desk):
    desk.project("script: train.py\nargs: {batch_size: 2, learning_rate: 0.5, name: x}\n")
    plan = desk.plan("platform=aws", "trainer=ddp")
    assert list(plan) == ["schema", "plan", "args"]
    assert plan["schema"] == 1
    assert list(plan["plan"]) == [
        "argv",
        "env",
        "platform",
        "nproc_per_node",
        "nnodes",
        "offers",
        "requests",
        "estimate_usd_per_hour",
        "estimate_usd",
        "notes",
    ]
    assert plan["args"] == {
        "batch_size": {"base": 2, "multiplier": 4, "effective": 8, "source": "conf/runctl.yaml"},
        "learning_rate": {"base": 0.5, "multiplier": 4.0, "effective": 2.0, "source": "conf/runctl.yaml"},
        "name": {"base": "x", "multiplier": None, "effective": "x", "source": "conf/runctl.yaml"},
    }


def test_the_local_plan_is_absolute(desk):
    plan = desk.plan("script=train.py", "run.id=one")["plan"]
    assert [word for word in plan["argv"] if word.endswith(".py")][-1] == str(desk.folder / "train.py")
    assert plan["argv"][0].startswith("/")
    assert plan["estimate_usd_per_hour"] == 0.0
    assert [offer["platform"] for offer in plan["offers"]] == ["local"]


def test_the_plan_for_people_says_that_nothing_was_started(desk):
    out, _ = desk.run("script=train.py", "args.x='a b'", "dry_run=true")
    assert "'--x=a b'" in out
    assert str(desk.folder / "train.py") in out
    assert out.endswith("Nothing was started: dry_run=true.\n")
    assert not (desk.folder / "runs").exists()
