"""The interpreter that is a container, with a `docker` that is none (tests/platforms/containers_here.py)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from containers_here import IMAGE, Docker
from rented import TIMEOUT_S, Host
from waiting import wait_until

from runctl import bundle, processes
from runctl.hosts import keeper, own_python
from runctl.platforms import containers

HOSTS = Path(keeper.__file__).parent
SCRIPT = HOSTS / "docker-python.sh"
AGENT = "import json, os, sys; json.dump([sys.argv, os.getcwd(), dict(os.environ)], open('../seen', 'w'))"
WAITS = """
import os, signal, sys, time
def leave(*_):
    time.sleep(0.5)
    open('../saved', 'w').close()
    sys.exit(143)
signal.signal(signal.SIGTERM, leave)
open('../ready', 'w').close()
time.sleep(300)
"""


@pytest.fixture
def docker(host: Host, tmp_path: Path) -> Docker:
    docker = Docker(tmp_path / "docker")
    (host.bin / "docker").symlink_to(docker.program)
    return docker


def describe(host: Host, folder: Path, agent: str, needed: str = "psutil", **fields: Any) -> None:
    """Have the keeper run an agent of this text in a container."""
    wheel = folder / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("runctl/__init__.py", "runctl/hosts/__init__.py"):
            archive.writestr(name, "")
        for name in ("keeper.py", "own_python.py"):
            archive.write(HOSTS / name, f"runctl/hosts/{name}")
        archive.writestr("runctl/agent.py", agent)
        archive.writestr("runctl/hosts/secrets.py", "import os, sys; os.execvp(sys.argv[2], sys.argv[2:])")
        archive.writestr("runctl-0.1.0.dist-info/METADATA", f"Name: runctl\nRequires-Dist: {needed}\n\n")
    program = bundle.program(SCRIPT, containers.PROGRAM, folder)
    host.describe(
        **{
            "files": [
                host.files.add("runctl-0.1.0-py3-none-any.whl", wheel.read_bytes()),
                host.files.add(program.name, program.read_bytes(), containers.FOLDER),
            ],
            "setup": ["../docker/docker-python -V"],
            "agent_python": "../docker/docker-python",
            "env": {"RUNCTL_DOCKER_IMAGE": IMAGE, "RUNCTL_DOCKER_NAME": "runctl-run-a1"},
            **fields,
        }
    )


def test_the_agent_runs_inside_with_what_it_needs_of_the_hosts_environment(
    host: Host, docker: Docker, tmp_path: Path
) -> None:
    host.env.update(
        AWS_REGION="us-east-1", AWS_SECRET_ACCESS_KEY="s3cret", AWS_SESSION_TOKEN="s3cret", MINE="s3cret",
        https_proxy="http://me:s3cret@proxy", RUNCTL_IMAGE_PYTHON="/opt/host/python", LANG="C.UTF-8",
    )  # fmt: skip
    describe(host, tmp_path, AGENT)
    assert host.run() == 0, host.log
    root = host.folder / "root"
    argv, cwd, env = json.loads((host.home / "seen").read_text())
    assert argv[1:] == ["--order", str(host.home / "order.json")]
    assert cwd == str(host.home / "runctl")
    assert (env["RUNCTL_HOST_ROOT"], env["TMPDIR"]) == (str(root), str(root / "tmp"))
    assert (env["AWS_REGION"], env["LANG"], env["https_proxy"]) == ("us-east-1", "C.UTF-8", "http://me:s3cret@proxy")
    assert not {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MINE", "RUNCTL_IMAGE_PYTHON"} & set(env)
    assert env["PYTHONPATH"] == str(host.home / "runctl"), "the image's own, and not the host's, would come after it"
    assert [one["argv"] for one in docker.seen("pull")] == [["pull", "--quiet", IMAGE]], "once, in the bring-up"
    first, second = (one["argv"] for one in docker.seen())
    assert first[-1] == "-V" and "--gpus" not in second
    assert "s3cret" not in json.dumps([first, second])
    for option in ("--rm", "--init", "--ipc=host", "memlock=-1", "stack=67108864", f"{root}:{root}", IMAGE):
        assert option in second, option
    assert first[first.index("--name") + 1] != second[second.index("--name") + 1]
    assert second[second.index("--name") + 1].startswith("runctl-run-a1-")
    assert host.shutdowns == ["-P now"]


@pytest.mark.parametrize(("said", "given"), [("GPU 0: NVIDIA L4 (UUID: x)", True), ("No devices found.", False)])
def test_gpus_are_asked_for_where_the_host_has_some(
    host: Host, docker: Docker, tmp_path: Path, said: str, given: bool
) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has one")
    host.program("nvidia-smi", f'#!/bin/sh\ntest "$1" = -L && echo "{said}"\n')
    describe(host, tmp_path, AGENT)
    assert host.run() == 0, host.log
    assert ["--gpus" in one["argv"] for one in docker.seen()] == [given, given]


def test_sigterm_reaches_the_agent_through_docker_and_its_code_comes_back(
    host: Host, docker: Docker, tmp_path: Path
) -> None:
    describe(host, tmp_path, WAITS)
    one = host.keep()
    wait_until((host.home / "ready").exists, TIMEOUT_S, "the agent runs")
    one.send_signal(signal.SIGTERM)
    assert one.wait(TIMEOUT_S) == 143
    assert (host.home / "saved").exists()
    assert host.shutdowns == ["-P now"]
    assert docker.containers() == {}


def test_a_client_that_is_killed_leaves_no_container_behind(host: Host, docker: Docker, tmp_path: Path) -> None:
    describe(host, tmp_path, WAITS)
    one = host.keep()
    wait_until((host.home / "ready").exists, TIMEOUT_S, "the agent runs")
    ((name, inside),) = docker.containers().items()
    for pid in processes.find_by_environment("RENTED_HOST", str(host.folder)):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"--name" in words and name.encode() in words:
            os.kill(pid, signal.SIGKILL)
    assert one.wait(TIMEOUT_S) == 137
    assert [one["argv"] for one in docker.seen("rm")] == [["rm", "--force", name]]
    wait_until(lambda: not processes.lives(inside), TIMEOUT_S, "the container is gone")


@pytest.mark.parametrize("agent", [None, sys.executable])
def test_a_setup_line_with_a_secret_runs_on_the_host(
    host: Host, docker: Docker, tmp_path: Path, agent: str | None
) -> None:
    if agent is not None:
        host.env["RUNCTL_AGENT_PYTHON"] = agent
    host.program("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    login = 'test -n "$RENTED_HOST" && touch ../logged-in'
    describe(host, tmp_path, AGENT, setup=[login, "../docker/docker-python -V"], setup_secrets={"TOKEN": "ssm:/x"})
    assert host.run() == 0, host.log
    assert (host.home / "logged-in").exists()
    assert len(docker.seen()) == 2, "the check of the image, and the agent"


def test_a_host_without_docker_is_told_before_the_agent_would_begin(host: Host, tmp_path: Path) -> None:
    for name in ("sh", "dirname", "mkdir", "bash"):
        (host.bin / name).symlink_to(str(shutil.which(name)))
    host.env["PATH"] = str(host.bin)
    describe(host, tmp_path, AGENT)
    assert host.run() == 1
    assert b"this host has no docker; platform.ami must have docker" in host.files.put["bring-up.log"]
    assert "setup line 1 ended with code 1" in host.ended()["bring_up_error"]
    assert host.shutdowns == ["-P now"]


def test_an_image_that_cannot_be_pulled_is_told_with_dockers_own_words(
    host: Host, docker: Docker, tmp_path: Path
) -> None:
    describe(host, tmp_path, AGENT, env={"RUNCTL_DOCKER_IMAGE": "me/private:1", "RUNCTL_DOCKER_NAME": "x"})
    assert host.run() == 1
    sent = host.files.put["bring-up.log"]
    assert b"pull access denied for me/private:1" in sent
    assert b"docker.image=me/private:1 could not be pulled; is the name right" in sent
    assert host.shutdowns == ["-P now"]


@pytest.mark.soak  # pip itself takes most of it
def test_what_the_image_lacks_goes_into_an_environment_of_the_attempts_own(
    host: Host, docker: Docker, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "needed-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("needed.py", "")
        archive.writestr("needed-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: needed\nVersion: 1.0\n")
        archive.writestr("needed-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("needed-1.0.dist-info/RECORD", "")
    describe(
        host, tmp_path, "import needed, sys; open('../seen', 'w').write(sys.prefix)",
        needed=f"needed @ file://{tmp_path}/needed-1.0-py3-none-any.whl", bring_up_s=100,
    )  # fmt: skip
    assert host.run() == 0, host.log
    assert (host.home / "seen").read_text() == str(host.home / "venv-image")


def test_what_an_interpreter_lacks_is_told_by_name_version_and_marker() -> None:
    assert own_python.lacking(["psutil>=5", "rich; python_version<'3'", "nowhere-at-all; python_version<'3'"]) == []
    assert own_python.lacking(["psutil>=999", "nowhere-at-all"]) == ["psutil>=999", "nowhere-at-all"]


def test_dockers_real_client_knows_every_option(host: Host, docker: Docker, tmp_path: Path) -> None:
    """The client alone, which looks at its options before it finds that there is no daemon."""
    real = shutil.which("docker")
    if real is None:
        pytest.skip("there is no docker client here")
    host.program("nvidia-smi", "#!/bin/sh\necho GPU 0: none\n")
    describe(host, tmp_path, AGENT)
    assert host.run() == 0, host.log
    nobody = {"PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{tmp_path}/nobody.sock", "HOME": str(tmp_path)}
    for told in (docker.seen()[-1]["argv"], ["rm", "--force", "x"], ["image", "inspect", IMAGE]):
        done = subprocess.run([real, *told], env=nobody, capture_output=True, text=True, timeout=60, check=False)
        assert "nobody.sock" in done.stderr, done.stderr
        assert "unknown" not in done.stderr
