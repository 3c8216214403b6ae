"""The loopback RunPod behaves as RunPod is known to: its API, its markets, its pods, and SSH into them."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from waiting import wait_until

from runctl import processes
from runctl.drill.faults import Fault
from runctl.drill.runpod.cloud import KEY, RunpodCloud
from runctl.drill.sandboxes import MARK

GPU = "NVIDIA RTX A5000"
RENT = {"name": "one", "imageName": "image", "gpuTypeId": GPU, "gpuCount": 1, "ports": "22/tcp", "startSsh": True}
ON_DEMAND = (
    "mutation($input: PodFindAndDeployOnDemandInput) { podFindAndDeployOnDemand(input: $input) { id costPerHr } }"
)
SPOT = "mutation($input: PodRentInterruptableInput!) { podRentInterruptable(input: $input) { id costPerHr podType } }"
POD = """query($id: String!) {
    pod(input: {podId: $id}) { id desiredStatus runtime { ports { ip privatePort publicPort } } }
}"""
TERMINATE = "mutation($id: String!) { podTerminate(input: {podId: $id}) }"
TRAPS = "sh -c 'trap \"echo told > told; exit\" TERM; while :; do sleep 0.05; done'"
#: Says when it last lived, each time whole.
CLOCK = "while :; do date +%s.%N > next; mv next alive; sleep 0.05; done"


@pytest.fixture(scope="module")
def cloud() -> Iterator[RunpodCloud]:
    with RunpodCloud() as cloud:
        yield cloud


@pytest.fixture(autouse=True)
def _as_it_was(cloud: RunpodCloud) -> Iterator[None]:
    yield
    cloud.clear()
    cloud.set_capacity(GPU)
    for one in cloud.pods():
        if one["state"] != "terminated":
            cloud.kill(one["id"])


@pytest.fixture(scope="module")
def key() -> paramiko.PKey:
    return paramiko.ECDSAKey.generate()


def ask(cloud: RunpodCloud, query: str, *, as_key: str = KEY, **variables: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{cloud.url}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Authorization": f"Bearer {as_key}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            told: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        return {"status": error.code, **(json.loads(error.read()) if error.code < 500 else {})}
    return told


def rent(cloud: RunpodCloud, query: str = ON_DEMAND, **more: Any) -> str:
    told = ask(cloud, query, input={**RENT, **more})
    return str(next(iter(told["data"].values()))["id"])


def refusal(told: dict[str, Any]) -> str:
    return str(told["errors"][0]["message"])


def pod(cloud: RunpodCloud, name: str) -> dict[str, Any]:
    return next(one for one in cloud.pods() if one["id"] == name)


def home(cloud: RunpodCloud, name: str) -> Path:
    return Path(pod(cloud, name)["folder"], "home")


def public(key: paramiko.PKey) -> list[dict[str, str]]:
    return [{"key": "PUBLIC_KEY", "value": f"{key.get_name()} {key.get_base64()} test"}]


def address(cloud: RunpodCloud, name: str) -> tuple[str, int]:
    def ports() -> list[dict[str, Any]]:
        return (ask(cloud, POD, id=name)["data"]["pod"]["runtime"] or {}).get("ports") or []

    wait_until(lambda: bool(ports()), 10, "the pod's ports are told")
    [one] = [one for one in ports() if one["privatePort"] == 22]
    return one["ip"], one["publicPort"]


@contextlib.contextmanager
def session(cloud: RunpodCloud, name: str, key: paramiko.PKey) -> Iterator[paramiko.SSHClient]:
    ip, port = address(cloud, name)
    user = cloud.environment({}).get("RUNCTL_POD_USER", "root")
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    deadline = time.monotonic() + 10
    while True:
        try:
            client.connect(ip, port, user, pkey=key, allow_agent=False, look_for_keys=False, timeout=5)
            break
        except (OSError, paramiko.SSHException):
            assert time.monotonic() < deadline, "no answer over SSH"
            time.sleep(0.1)
    try:
        yield client
    finally:
        client.close()


def run(client: paramiko.SSHClient, command: str) -> tuple[int, str, str]:
    _, out, err = client.exec_command(command, timeout=20)
    said = out.read().decode(), err.read().decode()
    return out.channel.recv_exit_status(), *said


# --- the API ---


def test_gpus_are_told_with_their_prices_and_the_lowest_that_are_to_be_had(cloud: RunpodCloud) -> None:
    query = "{ gpuTypes { id memoryInGb secureSpotPrice lowestPrice(input: {gpuCount: 1}) { minimumBidPrice } } }"
    told = {one["id"]: one for one in ask(cloud, query)["data"]["gpuTypes"]}
    assert told[GPU]["memoryInGb"] == 24
    assert told[GPU]["lowestPrice"]["minimumBidPrice"] < told[GPU]["secureSpotPrice"]
    cloud.set_capacity(GPU, spot=0)
    told = {one["id"]: one for one in ask(cloud, query)["data"]["gpuTypes"]}
    assert told[GPU]["lowestPrice"]["minimumBidPrice"] is None


def test_a_query_is_really_parsed_and_checked(cloud: RunpodCloud) -> None:
    assert "Cannot query field 'nothing'" in refusal(ask(cloud, "{ nothing }"))
    assert "Syntax Error" in refusal(ask(cloud, '{ pod(input: {podId: "a"b"}) { id } }'))
    injected = 'mutation { podFindAndDeployOnDemand(input: {name: "a", gpuCount: 8, imageName: "b"}) { id } }'
    assert "no longer any instances" in refusal(ask(cloud, injected))
    assert "unknown" in ask(cloud, '{ gpuTypes(input: {id: "unknown"}) { id } }')["data"]["gpuTypes"][0]["id"]


def test_a_wrong_key_is_refused_with_401(cloud: RunpodCloud) -> None:
    assert ask(cloud, "{ myself { id } }", as_key="nobody's")["status"] == 401


def test_names_may_repeat_and_terminated_pods_are_told_of_no_more(cloud: RunpodCloud) -> None:
    query = "{ myself { currentSpendPerHr pods { id name } } }"
    first, second = rent(cloud), rent(cloud)
    told = ask(cloud, query)["data"]["myself"]
    assert {one["id"]: one["name"] for one in told["pods"]} == {first: "one", second: "one"}
    assert told["currentSpendPerHr"] == pytest.approx(2 * 0.22)
    assert ask(cloud, TERMINATE, id=first) == {"data": {"podTerminate": None}}
    assert [one["id"] for one in ask(cloud, query)["data"]["myself"]["pods"]] == [second]
    assert ask(cloud, POD, id=first)["data"]["pod"] is None
    assert "not found" in refusal(ask(cloud, TERMINATE, id=first))


def test_capacity_bids_funds_and_data_centers_are_looked_at(cloud: RunpodCloud) -> None:
    cloud.set_capacity(GPU, on_demand=1)
    rent(cloud)
    assert "no longer any instances" in refusal(ask(cloud, ON_DEMAND, input=RENT))
    low = ask(cloud, SPOT, input={**RENT, "cloudType": "SECURE", "bidPerGpu": 0.17})
    assert "bid" in refusal(low)
    high = ask(cloud, SPOT, input={**RENT, "cloudType": "SECURE", "bidPerGpu": 0.2})["data"]["podRentInterruptable"]
    assert (high["costPerHr"], high["podType"]) == (0.2, "INTERRUPTABLE")
    cloud.set_price(GPU, community_spot=None)
    assert "no longer" in refusal(ask(cloud, SPOT, input={**RENT, "cloudType": "COMMUNITY", "bidPerGpu": 9.0}))
    cloud.set_price(GPU, community_spot=0.14)
    volume = cloud.make_volume("data", "EU-RO-1")
    there = {**RENT, "networkVolumeId": volume, "dataCenterId": "US-KS-2", "bidPerGpu": 1.0}
    assert "no longer" in refusal(ask(cloud, SPOT, input=there))
    cloud.set_balance(0.01)
    assert "funds" in refusal(ask(cloud, SPOT, input={**RENT, "bidPerGpu": 0.5}))
    cloud.set_balance(100.0)


@pytest.mark.parametrize(
    ("fault", "shown", "made"),
    [
        (Fault("podFindAndDeployOnDemand", "capacity", 200, "There are none"), "There are none", 0),
        (Fault("podFindAndDeployOnDemand", "x", 401), 401, 0),
        (Fault("podFindAndDeployOnDemand", "x", 502), 502, 0),
        (Fault("podFindAndDeployOnDemand", "x", 502, after=True), 502, 1),
        (Fault("podFindAndDeployOnDemand", "null"), {"podFindAndDeployOnDemand": None}, 0),
        (Fault("podFindAndDeployOnDemand"), "", 0),
        (Fault("podFindAndDeployOnDemand", after=True), "", 1),
    ],
    ids=["capacity", "401", "html", "html-after", "null", "lost", "lost-after"],
)
def test_faults_are_met_in_runpods_words(cloud: RunpodCloud, fault: Fault, shown: object, made: int) -> None:
    before = len(cloud.pods())
    cloud.inject(fault)
    if shown == "":
        with pytest.raises((OSError, urllib.error.URLError)):
            ask(cloud, ON_DEMAND, input=RENT)
    else:
        told = ask(cloud, ON_DEMAND, input=RENT)
        assert shown in (told.get("data"), told.get("status")) or refusal(told) == shown
    assert len(cloud.pods()) - before == made
    assert cloud.calls()[-1]["error"]


# --- pods ---


def test_a_pod_ends_itself_with_the_key_that_is_its_own_and_touches_no_other(cloud: RunpodCloud) -> None:
    other = rent(cloud)
    one = rent(cloud, dockerArgs=f"sh -c 'runpodctl remove pod {other} 2>&1 | tail -1 > tried; "
               "runpodctl remove pod $RUNPOD_POD_ID; sleep 60'")  # fmt: skip
    wait_until(lambda: pod(cloud, one)["state"] == "terminated", 10, "the pod has ended itself")
    assert "may not do that" in (home(cloud, one) / "tried").read_text()
    assert pod(cloud, other)["state"] == "running"
    wait_until(lambda: not processes.find_by_environment(MARK, one), 5, "nothing of it runs")


def test_a_container_starts_again_when_its_entrypoint_ends_and_keeps_its_disk(cloud: RunpodCloud) -> None:
    name = rent(cloud, dockerArgs="sh -c 'echo $RUNPOD_POD_ID $WORD >> lives; sleep 30 & exit 3'",
                env=[{"key": "WORD", "value": "a \"b' $c\n"}])  # fmt: skip
    wait_until(lambda: pod(cloud, name)["starts"] >= 3, 10, "it has started three times")
    assert (home(cloud, name) / "lives").read_text().startswith(f"{name} a \"b' $c\n")
    ask(cloud, TERMINATE, id=name)
    wait_until(lambda: not processes.find_by_environment(MARK, name), 5, "nothing of it runs")


def test_an_interrupted_pod_is_told_with_sigterm_and_has_exited_then(cloud: RunpodCloud) -> None:
    name = rent(cloud, SPOT, bidPerGpu=0.2, dockerArgs=TRAPS)
    wait_until(lambda: pod(cloud, name)["starts"] == 1, 10, "it runs")
    time.sleep(0.3)
    cloud.interrupt(name)
    wait_until(lambda: pod(cloud, name)["state"] == "exited", 3, "it has exited")
    assert (home(cloud, name) / "told").exists()
    told = ask(cloud, POD, id=name)["data"]["pod"]
    assert (told["desiredStatus"], told["runtime"]) == ("EXITED", None)
    assert pod(cloud, name)["starts"] == 1


def test_what_hears_no_sigterm_is_killed_after_five_seconds(cloud: RunpodCloud) -> None:
    name = rent(cloud, SPOT, bidPerGpu=0.2, dockerArgs=f"sh -c '{CLOCK}'")
    wait_until((home(cloud, name) / "alive").exists, 10, "it runs")
    began = time.time()
    cloud.interrupt(name)
    wait_until(lambda: pod(cloud, name)["state"] == "exited", 9, "it has exited")
    lived_s = float((home(cloud, name) / "alive").read_text()) - began
    assert 4.5 < lived_s < 6.5
    assert not processes.find_by_environment(MARK, name)


def test_a_pod_ends_at_the_time_that_its_request_named(cloud: RunpodCloud) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    name = rent(cloud, terminateAfter=at)
    assert pod(cloud, name)["state"] == "running"
    wait_until(lambda: pod(cloud, name)["state"] == "terminated", 5, "it has ended")


def test_a_network_volume_outlives_its_pods_and_a_secret_is_filled_in(cloud: RunpodCloud) -> None:
    volume = cloud.make_volume("data")
    cloud.set_secret("word", "s3cret")
    name = rent(cloud, networkVolumeId=volume, env=[{"key": "WORD", "value": "{{ RUNPOD_SECRET_word }}"}],
                dockerArgs="sh -c 'echo $WORD > $RUNCTL_POD_VOLUME/kept; sleep 60'")  # fmt: skip
    kept = cloud.folder / "volumes" / volume / "kept"
    wait_until(lambda: kept.exists() and kept.read_text(), 10, "the pod has written")
    assert "cannot be stopped" in refusal(ask(cloud, f'mutation {{ podStop(input: {{podId: "{name}"}}) {{ id }} }}'))
    cloud.kill(name)
    second = rent(cloud, networkVolumeId=volume, dockerArgs="sh -c 'cat $RUNCTL_POD_VOLUME/kept > found; sleep 60'")
    found = home(cloud, second) / "found"
    assert wait_until(lambda: found.exists() and found.read_text(), 10, "the next pod has read") == "s3cret\n"


# --- SSH ---


def test_a_session_runs_in_the_pod_with_its_environment(cloud: RunpodCloud, key: paramiko.PKey) -> None:
    env = [*public(key), {"key": "WORD", "value": "a \"b' $c"}]
    name = rent(cloud, env=env)
    with session(cloud, name, key) as client:
        code, out, err = run(
            client, 'pwd; echo "$WORD|$RUNPOD_POD_ID|$TMPDIR|$RUNCTL_HOST_ROOT"; echo oops >&2; exit 7'
        )
        folder = pod(cloud, name)["folder"]
        assert (code, err) == (7, "oops\n")
        assert out == f"{folder}/home\na \"b' $c|{name}|{folder}/tmp|{folder}/var/lib/runctl\n"
        # What is detached lives on without its session, and falls with its pod.
        run(client, "setsid sleep 300 > /dev/null 2>&1 < /dev/null & echo")
    assert len(processes.find_by_environment(MARK, name)) > 1
    cloud.kill(name)
    assert not processes.find_by_environment(MARK, name)


def test_files_go_both_ways_at_the_paths_that_sessions_see(cloud: RunpodCloud, key: paramiko.PKey) -> None:
    name = rent(cloud, env=public(key))
    with session(cloud, name, key) as client:
        _, root, _ = run(client, 'printf %s "$RUNCTL_HOST_ROOT"')
        with client.open_sftp() as sftp:
            sftp.putfo(io.BytesIO(b"x" * 300_000), f"{root}/sent")
            back = io.BytesIO()
            sftp.getfo(f"{root}/sent", back)
        assert back.getvalue() == b"x" * 300_000
        assert run(client, f"wc -c < {root}/sent")[1].strip() == "300000"


def test_another_key_is_refused_and_a_pod_without_one_has_no_sshd(cloud: RunpodCloud, key: paramiko.PKey) -> None:
    name, without = rent(cloud, env=public(key)), rent(cloud)
    with session(cloud, name, key):
        pass
    ip, port = address(cloud, name)
    with paramiko.SSHClient() as client, pytest.raises(paramiko.AuthenticationException):
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(ip, port, "root", pkey=paramiko.ECDSAKey.generate(), allow_agent=False, look_for_keys=False)
    with pytest.raises(OSError, match="Unable to connect"), paramiko.SSHClient() as client:
        client.connect(*address(cloud, without), "root", pkey=key, allow_agent=False, look_for_keys=False)


def test_a_restarted_pod_keeps_port_and_disk_and_may_have_another_host_key(
    cloud: RunpodCloud, key: paramiko.PKey
) -> None:
    name = rent(cloud, env=public(key))
    seen = []
    restart: list[Callable[[], None]] = [
        lambda: cloud.restart(name),
        lambda: cloud.restart(name, new_host_key=True),
        lambda: None,
    ]
    for do in restart:
        with session(cloud, name, key) as client:
            transport = client.get_transport()
            assert transport is not None
            seen.append((transport.getpeername()[1], transport.get_remote_server_key().get_base64()))
            assert run(client, "echo >> lives; wc -l < lives")[1].strip() == str(len(seen))
        do()
    assert len({port for port, _ in seen}) == 1
    assert seen[0] == seen[1] != seen[2]


def test_a_connection_that_is_cut_ends_nothing_that_was_started_through_it(
    cloud: RunpodCloud, key: paramiko.PKey
) -> None:
    name = rent(cloud, env=public(key))
    with session(cloud, name, key) as client:
        run(
            client,
            f"setsid sh -c '{CLOCK}' > /dev/null 2>&1 < /dev/null & :",
        )
        cloud.cut(name)
        transport = client.get_transport()
        assert transport is not None
        wait_until(lambda: not transport.is_active(), 5, "the connection is cut")
    alive = home(cloud, name) / "alive"
    seen = alive.read_text()
    wait_until(lambda: alive.read_text() not in ("", seen), 5, "it goes on")
    with session(cloud, name, key) as client:
        assert run(client, "echo again")[1] == "again\n"


# --- the end ---


def test_nothing_runs_after_the_end_nor_after_the_servers_death(key: paramiko.PKey, tmp_path: Path) -> None:
    for kill in (False, True):
        with RunpodCloud(tmp_path / str(kill)) as cloud:
            name = rent(cloud, env=public(key))
            with session(cloud, name, key) as client:
                run(client, "setsid sleep 300 > /dev/null 2>&1 < /dev/null & echo")
            port = pod(cloud, name)["ssh_port"]
            if kill:
                assert cloud._process is not None
                cloud._process.kill()
        assert not processes.find_by_environment(MARK, name)
        with pytest.raises(OSError, match="Unable to connect"), paramiko.SSHClient() as client:
            client.connect("127.0.0.1", port, "root", pkey=key, allow_agent=False, look_for_keys=False)
        assert (tmp_path / str(kill)).exists()


def test_nothing_runs_after_the_death_of_whoever_holds_the_cloud() -> None:
    code = f"""
import json, sys, urllib.request
from runctl.drill.runpod.cloud import KEY, RunpodCloud
with RunpodCloud() as cloud:
    body = json.dumps(dict(query={ON_DEMAND!r}, variables=dict(input=json.loads(sys.argv[1])))).encode()
    request = urllib.request.Request(cloud.url + "/graphql", body, dict(Authorization="Bearer " + KEY))
    told = json.load(urllib.request.urlopen(request))
    print(told["data"]["podFindAndDeployOnDemand"]["id"], cloud.folder, flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(RENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    name, folder = holder.stdout.readline().split()
    try:
        wait_until(lambda: bool(processes.find_by_environment(MARK, name)), 5, "the pod runs")
        holder.kill()
        holder.wait()
        wait_until(lambda: not processes.find_by_environment(MARK, name), 10, "nothing of it runs")
    finally:
        holder.stdin.close()
        holder.stdout.close()
        shutil.rmtree(folder)
