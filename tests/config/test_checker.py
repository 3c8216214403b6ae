"""A configuration that differs from the one before in values alone is checked by those, with the same result."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf, open_dict

from runctl.config import checker as checkers
from runctl.config import schemas
from runctl.config.checker import Checker
from runctl.errors import ConfigError
from runctl.platforms import registry

WORDS = ["script=train.py", "args.lr=1", "args.layers=[1,2]", "args.model={depth: 3}", "+env.A=x"]


@pytest.fixture(scope="module")
def config() -> DictConfig:
    schemas.register(registry.others())
    with initialize_config_module(config_module="runctl.conf", version_base="1.3"):
        return compose(config_name="runctl", overrides=WORDS)


def merges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    done: list[int] = []
    merge = OmegaConf.merge
    monkeypatch.setattr(checkers.OmegaConf, "merge", lambda *configs: done.append(1) or merge(*configs))
    return done


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("args.lr", 2), ("args.lr", True), ("args.lr", "1"), ("args.lr", None), ("args.lr", "${args.model.depth}"),
        ("args.layers", [True, 2]), ("args.layers", []), ("args.layers", None), ("args.model.depth", 1e-3),
        ("env.A", 3), ("trainer.kind", "ddp"), ("trainer.omp_threads", 4), ("run.name", "other"),
        ("retry_on", ["host_fault"]), ("sweep.max_parallel", 3), ("dry_run", "true"),
    ],
)  # fmt: skip
def test_another_value_gives_what_a_check_of_all_gives_without_merging_all(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    other = copy.deepcopy(config)
    OmegaConf.update(other, key, value)
    checker = Checker(registry.options)
    first = repr(checker.checked(config))
    done = merges(monkeypatch)
    assert repr(checker.checked(other)) == repr(Checker(registry.options).checked(other)) != first
    assert repr(checker.checked(config)) == first
    assert len(done) == 1, "the one that checks all"


@pytest.mark.parametrize(
    "change", [{"args": {"new": 1}}, {"args": {"model": {"deeper": 1}}}, {"args": {"layers": {"a": 1}}}]
)
def test_another_shape_is_merged_anew(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    checker = Checker(registry.options)
    first = repr(checker.checked(config))
    other = copy.deepcopy(config)
    with open_dict(other):
        other.args = {**OmegaConf.to_container(other.args), **change["args"]}
    done = merges(monkeypatch)
    assert repr(checker.checked(other)) == repr(Checker(registry.options).checked(other)) != first
    assert repr(checker.checked(config)) == first
    assert len(done) == 3


@pytest.mark.parametrize(
    ("key", "value"), [("args.lr", "${nowhere}"), ("sweeep", 1), ("args.lr", "???"), ("trainer.omp", 1)]
)
def test_what_cannot_be_is_said_as_a_check_of_all_says_it_and_the_next_is_right_again(
    config: DictConfig, key: str, value: Any
) -> None:
    checker = Checker(registry.options)
    first = repr(checker.checked(config))
    other = copy.deepcopy(config)
    with open_dict(other):
        OmegaConf.update(other, key, value, force_add=True)
    with pytest.raises(ConfigError) as at_once:
        Checker(registry.options).checked(other)
    with pytest.raises(ConfigError) as later:
        checker.checked(other)
    assert str(later.value) == str(at_once.value)
    assert repr(checker.checked(config)) == first


def test_a_wrong_value_from_a_later_job_is_named(config: DictConfig) -> None:
    checker = Checker(registry.options)
    checker.checked(config)
    other = OmegaConf.create(OmegaConf.to_container(config))
    assert isinstance(other, DictConfig)
    other.trainer.omp_threads = "many"
    with pytest.raises(ConfigError, match=r"trainer\.omp_threads"):
        checker.checked(other)
