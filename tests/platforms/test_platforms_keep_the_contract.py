"""The contract, platform by platform."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract import Bench, PlatformContract

from runctl.errors import PlatformError
from runctl.platforms import registry
from runctl.platforms.base import Platform
from runctl.platforms.local import LocalAgent, LocalPlatform
from runctl.spec import LaunchSpec, Plan, Quote, RunHandle, RunState


class TestLocal(PlatformContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        return Bench(lambda project: LocalPlatform(project, output_to_stderr=True), tmp_path)

    def test_an_agent_that_stands_by_gets_the_first_attempt(self, bench: Bench) -> None:
        standby = LocalAgent()
        bench.platform = LocalPlatform(bench.project, standby=standby)
        handle = bench.submitted("")
        assert handle.address["pid"] == standby.process.pid
        assert bench.end_of(handle) is RunState.SUCCEEDED

    def test_a_dismissed_agent_ends(self) -> None:
        agent = LocalAgent()
        agent.dismiss()
        assert agent.process.wait(timeout=20) == 0


class Broken(LocalPlatform):
    """A platform with two defects."""

    def _plan(self, spec: LaunchSpec, quote: Quote, attempt: int) -> Plan:
        return Plan("one", attempt, "other", (), {}, 1, 1, "/", "/")

    def _submit(self, plan: Plan) -> RunHandle:
        raise ConnectionResetError("connection lost")


def test_the_guard_catches_a_plan_under_a_foreign_name(tmp_path: Path) -> None:
    bench = Bench(Broken, tmp_path)
    with pytest.raises(PlatformError, match="platform local made a plan for other"):
        bench.plan(bench.spec())


def test_the_guard_translates_what_a_submit_raises(tmp_path: Path) -> None:
    bench = Bench(Broken, tmp_path)
    plan = LocalPlatform(bench.project).plan(bench.spec(), Quote(), 1)
    with pytest.raises(PlatformError, match="local: connection lost") as told:
        bench.platform.submit(plan)
    assert isinstance(told.value.__cause__, ConnectionResetError)


def test_every_platform_of_ours_is_under_contract() -> None:
    ours = [registry.load(kind) for kind in registry.kinds()]
    assert {platform.kind for platform in ours} == {"local", "aws", "runpod"}
    assert all(issubclass(platform, Platform) for platform in ours)
