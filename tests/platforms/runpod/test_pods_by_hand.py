"""Pods of no run: made, commanded, given files, trained on and ended, all of it over real SSH on loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from runctl.drill.runpod.cloud import RunpodCloud
from runctl.errors import ConfigError
from runctl.platforms.hosts import folder, noted
from runctl.platforms.rented import Market
from runctl.platforms.runpod import RunpodPlatform
from runctl.platforms.runpod.hosts import RunpodHosts
from runctl.platforms.runpod.options import RunpodConfig
from runctl.spec import LaunchSpec, Program, Resources, RunIdentity


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunpodCloud]:
    with RunpodCloud() as cloud, pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.environment({}).items():
            patch.setenv(name, value)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield cloud


def platform(folder: Path, **options: object) -> RunpodPlatform:
    return RunpodPlatform(folder, RunpodConfig(**{"market": Market.on_demand, **options}))


@pytest.fixture(scope="module")
def hosts(pods: RunpodCloud, tmp_path_factory: pytest.TempPathFactory) -> RunpodHosts:
    return platform(tmp_path_factory.mktemp("project")).hosts()


@pytest.fixture(scope="module")
def made(hosts: RunpodHosts) -> str:
    host = hosts.create(Resources(), 3600.0)
    assert host.by_hand and host.lives_s == 3600.0 and noted(host.id)["name"] == host.run
    return host.id


def test_it_is_listed_with_its_deadline_and_commanded(hosts: RunpodHosts, made: str) -> None:
    [listed] = [one for one in hosts.living() if one.id == made]
    assert listed.by_hand and listed.price_usd_per_hour and listed.lives_s == 3600.0
    done = hosts.run(made, "echo out; echo err >&2; exit 7", 30.0)
    assert (done.exit_code, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_files_go_there_and_come_back(hosts: RunpodHosts, made: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "a b.bin").write_bytes(os.urandom(300_000))
    (tmp_path / "data" / "sub" / "run.sh").write_text("echo hi")
    (tmp_path / "data" / "sub" / "run.sh").chmod(0o755)
    assert hosts.upload(made, tmp_path / "data", "inputs/data") == 2
    assert hosts.run(made, "./inputs/data/sub/run.sh", 30.0).stdout == "hi\n"
    assert hosts.download(made, "inputs/data", tmp_path / "back") == 2
    assert (tmp_path / "back" / "a b.bin").read_bytes() == (tmp_path / "data" / "a b.bin").read_bytes()
    assert hosts.download(made, "inputs/data/a b.bin", tmp_path / "one.bin") == 1
    assert (tmp_path / "one.bin").stat().st_size == 300_000
    with pytest.raises(ConfigError, match="there is nothing on"):
        hosts.download(made, "inputs/none", tmp_path / "none")
    with pytest.raises(ConfigError, match="nothing to be sent"):
        hosts.upload(made, tmp_path / "none", ".")


def test_a_shell_is_ssh_with_its_key_and_its_pinned_host_key(hosts: RunpodHosts, made: str) -> None:
    words = hosts.shell(made, "base/a1/project")
    assert words[1] == "-t" and "StrictHostKeyChecking=yes" in words
    without_terminal = [words[0], *words[2:-1], "echo $0 && pwd"]
    done = subprocess.run(without_terminal, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    known = next(Path(word.partition("=")[2]) for word in words if word.startswith("UserKnownHostsFile="))
    kind, key = known.read_text().split()[1:3]
    known.write_text(known.read_text().replace(key, f"{key[:-8]}AAAAAAA="))  # somebody else answers there
    done = subprocess.run(without_terminal, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 255 and kind == "ssh-ed25519"


def test_a_plan_for_it_rents_nothing_and_has_its_pod_stay(hosts: RunpodHosts, made: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('trained')")
    there = platform(tmp_path, host=made)
    spec = there.completed(LaunchSpec(RunIdentity("base", "base", str(tmp_path)), Program("train.py", None)))
    assert spec.limits.max_time_s is not None and spec.limits.max_time_s < 3600.0
    plan = there.plan(spec, there.quote(spec), 1)
    use, orders = plan.requests
    assert use["address"]["instance"] == made and use["address"]["stays"]
    assert orders["orders"]["keep_s"] == 3600.0
    # Another object of the platform, as a launch has one to plan and one to carry out.
    again = platform(tmp_path, host=made)
    assert again.plan(spec, again.quote(spec), 1).requests[0] == use


def test_a_run_that_was_interrupted_there_goes_on_on_one_that_is_rented_for_it(made: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('trained')")
    told: list[str] = []
    there = RunpodPlatform(tmp_path, RunpodConfig(host=made, market=Market.on_demand), told.append)
    spec = there.completed(LaunchSpec(RunIdentity("base", "base", str(tmp_path)), Program("train.py", None)))
    there.quote(spec)
    there._watches["base", 1] = object()  # type: ignore[assignment]
    plan = there.plan(spec, there.quote(spec), 2)
    assert plan.requests[0]["call"] == "podFindAndDeployOnDemand" and plan.requests[-1]["orders"]["keep_s"] == 0.0
    assert told == [f"{made} is lost to this run; it goes on on one that is rented, and ends with it"]


def test_what_others_made_is_left_alone(pods: RunpodCloud, hosts: RunpodHosts, made: str) -> None:
    with pytest.raises(ConfigError, match="left alone"):
        hosts.terminate("0123456789abcd")
    assert next(one for one in pods.pods() if one["id"] == made)["state"] == "running"


def test_another_machine_has_no_key_and_says_so(
    hosts: RunpodHosts, made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="from which it was rented"):
        hosts.run(made, "true", 5.0)


def test_one_that_has_exited_is_listed_for_its_disk_as_cleanup_finds_it_and_can_be_ended(
    pods: RunpodCloud, hosts: RunpodHosts, tmp_path: Path
) -> None:
    host = hosts.create(Resources(), 3600.0)
    pods.interrupt(host.id)
    wait_until(lambda: hosts._pods.get(host.id).state == "EXITED", 20, "it has exited")
    listed = {one.id for one in hosts.living()}
    assert host.id in listed
    assert listed == {one.id for one in platform(tmp_path).holdings(())}
    with pytest.raises(ConfigError, match="no living host"):
        hosts.run(host.id, "true", 5.0)
    assert hosts.terminate(host.id).id == host.id
    assert host.id not in {one.id for one in hosts.living()}


def test_its_end_takes_its_keys_along(pods: RunpodCloud, hosts: RunpodHosts) -> None:
    host = hosts.create(Resources(), 3600.0)
    hosts.run(host.id, "true", 30.0)
    assert folder(host.run).exists()
    hosts.terminate(host.id)
    assert next(one for one in pods.pods() if one["id"] == host.id)["state"] != "running"
    assert not folder(host.run).exists()
    with pytest.raises(ConfigError):
        hosts.get(host.id)
