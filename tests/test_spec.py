"""LaunchSpec and its companions as JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from runctl.arguments import ArgumentStyle
from runctl.encoding import dumps, from_data, loads, to_data
from runctl.outcome import Attempt, Failure, Outcome
from runctl.scaling import Argument
from runctl.spec import LaunchSpec, Limits, Logs, Offer, Plan, Program, Quote, RunHandle, RunIdentity, RunState, Trainer

SPEC = LaunchSpec(
    run=RunIdentity("one", "größe", "s3://bucket/runs"),
    program=Program("train.py", None, ("fit",), ("--lr", "1 \n'x'"), "sub"),
    args={
        "lr": Argument(0.001, 4.0, 0.004, "conf/runctl.yaml"),
        "l": Argument([1, "a"], None, [1, "a"], "sweep", "swept"),
    },
    args_style=ArgumentStyle("hydra", "dashes", "flag", "comma"),
    trainer=Trainer("ddp", 3, 1, 2, 4, {"A": "1"}),
    env={"B": "${x}"},
    secrets={"T": "env:T"},
    tags={"k": "v"},
    limits=Limits(1800.0),
    logs=Logs("rank0", "all"),
    plugins_disabled=("cost",),
)
OUTCOME = Outcome(
    "one",
    "größe",
    RunState.FAILED,
    3,
    "rank 1 failed",
    "/runs/one",
    attempts=[Attempt(1, "local", "here", state=RunState.FAILED, failure=Failure(1, "here", 3, "boom", at=1.5))],
    metrics={"loss": 0.5},
)


@pytest.mark.parametrize(
    "value",
    [
        SPEC,
        LaunchSpec(RunIdentity("a", "a", "runs"), Program("a.py", None)),
        OUTCOME,
        Plan(
            "one",
            1,
            "aws",
            ("python",),
            {},
            None,
            1,
            "/w",
            "/r",
            offers=(Offer("aws", "g5", "spot"),),
            requests=({"a": 1},),
        ),
        Quote((Offer("local", "here", "own", price_usd_per_hour=0.0),), "here"),
        RunHandle("local", "one", 1, {"pid": 5}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_and_back_is_the_same(value):
    assert loads(type(value), dumps(value)) == value
    assert "\n" not in dumps(value)


@pytest.mark.parametrize(
    ("path", "told"), [((), "LaunchSpec has no field new"), (("trainer",), "LaunchSpec.trainer has no field new")]
)
def test_an_unknown_field_is_refused_by_name(path, told):
    data = to_data(SPEC)
    part = data
    for key in path:
        part = part[key]
    part["new"] = 1
    with pytest.raises(ValueError, match=f"{told}; a newer runctl"):
        from_data(LaunchSpec, data)


def test_a_spec_is_frozen_plain_data():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.run.id = "two"  # type: ignore[misc]
    assert json.loads(json.dumps(to_data(SPEC))) == to_data(SPEC)


def test_words_stand_in_their_order():
    assert SPEC.script_words() == ["fit", "lr=0.004", "l=[1,a]", "--lr", "1 \n'x'"]


def test_the_trainers_variables_win():
    spec = dataclasses.replace(SPEC, env={"A": "0", "LR": "env"}, args_style=ArgumentStyle("env"))
    assert spec.script_env() == {"A": "1", "LR": "env", "L": "1,a"}


@pytest.mark.parametrize("state", list(RunState))
def test_a_state_has_ended_or_not(state):
    assert state.ended is (state.value in ("succeeded", "failed", "stopped", "interrupted"))


def test_an_outcome_shows_its_documented_keys():
    data = OUTCOME.to_json()
    assert list(data) == [
        "schema",
        "run_id",
        "name",
        "state",
        "exit_code",
        "reason",
        "run_dir",
        "attempts",
        "step",
        "resumed_from_step",
        "steps_lost",
        "checkpoints",
        "metrics",
        "cost_usd",
    ]
    assert list(data["attempts"][0]) == [
        "platform",
        "host",
        "market",
        "started_at",
        "ended_at",
        "end_reason",
        "cost_usd",
    ]
    assert (data["schema"], data["state"]) == (1, "failed")
