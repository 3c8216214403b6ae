"""The environment that ranks get: made, kept, brought back, and said when it cannot be."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from indexes import USER, Index, wheel
from waiting import wait_until

from runctl.agent.environment import archive, interpreters
from runctl.agent.environment.cache import Cache, Manifest
from runctl.agent.environment.commands import Commands, Scrubber
from runctl.agent.environment.ready import RanksEnvironment, Ready
from runctl.agent.environment.uv import tool
from runctl.agent.order import Order
from runctl.environment import Environment
from runctl.errors import EnvironmentFailed
from runctl.spec import LaunchSpec, Program, RunIdentity

TOKEN = "canary-token-91ab"
TORCH = "__version__ = '99.0'\n"
FILES = dict(
    [
        wheel("feather", "1.2", "import quill\n", needs=("quill", "torch>=2")),
        wheel("quill", "1.0", "INK = 'blue'\n", script="#!python\nimport quill, sys\nprint(quill.INK, sys.prefix)\n"),
        wheel("leaky", "1.0", f"KEY = '{TOKEN}'\n"),
        wheel("torch", "99.0", TORCH, more={"torch/version.py": "cuda: str | None = '12.8'\n"}),
    ]
)
BASE = os.path.realpath(Path(sys.base_prefix, "bin", "python3"))


@pytest.fixture
def index() -> Iterator[Index]:
    server = Index(FILES)
    yield server
    server.close()


@dataclass
class Hosts:
    """Hosts that attempts of one run come to, one after the other; each has a folder of its own."""

    folder: Path
    index: Index
    monkeypatch: pytest.MonkeyPatch
    said: list[str] = field(default_factory=list)
    number: int = 0

    def __post_init__(self) -> None:
        self.project = self.folder / "project"
        self.project.mkdir()
        self.monkeypatch.setenv("RUNCTL_IMAGE_PYTHON", sys.executable)
        self.monkeypatch.setenv("UV_DEFAULT_INDEX", self.index.url)
        interpreters.look.cache_clear()
        self.rent()

    def rent(self) -> None:
        """From here on it is another host."""
        self.number += 1
        self.monkeypatch.setenv("RUNCTL_HOST_ROOT", str(self.folder / f"host-{self.number}"))

    def environment(self, text: str = "feather\n", **fields: object) -> RanksEnvironment:
        file = "requirements.txt"
        (self.project / file).write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        wanted = Environment(**{"kind": "uv", "files": (file,), "digest": digest, **fields})
        return self.of(wanted)

    def of(self, wanted: Environment) -> RanksEnvironment:
        run = RunIdentity("run", "run", str(self.folder / "runs"))
        spec = LaunchSpec(run, Program("train.py", None), environment=wanted)
        order = Order(str(self.folder / "runs" / "run"), 1, str(self.project), "aws", attached=False)
        return RanksEnvironment(order, spec, self.said.append)

    def ready(self, environment: RanksEnvironment, **secrets: str) -> Ready:
        ready = environment.prepare(secrets, lambda: None, lambda: False)
        assert ready is not None
        return ready

    def kept(self, environment: RanksEnvironment) -> None:
        environment.keep()
        wait_until(lambda: not environment.keeping(), 30, "it is kept")

    def archives(self) -> list[Path]:
        return sorted((self.folder / "runs" / ".environments").glob("*/*.tar.gz"))


@pytest.fixture
def hosts(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    yield Hosts(tmp_path, index, monkeypatch)
    interpreters.look.cache_clear()


def says(ready: Ready, program: str) -> str:
    done = subprocess.run(
        [ready.python, "-c", program], env={**os.environ, **ready.variables}, cwd="/", capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.slow
def test_it_is_made_once_and_moved_to_the_next_host_with_its_scripts(hosts: Hosts) -> None:
    first = hosts.environment()
    made = hosts.ready(first)
    assert made.source == "made"
    hosts.kept(first)
    assert hosts.ready(hosts.environment("quill\n")).source == "made", "another lock is another environment"
    hosts.index.close()
    hosts.rent()
    brought = hosts.ready(hosts.environment())
    assert brought.source == "cache"
    assert brought.python.startswith(str(hosts.folder / "host-2"))
    assert says(brought, "import feather, torch; print(torch.__version__)").startswith("2.")
    shown = says(brought, "import subprocess; print(subprocess.check_output(['quill'], text=True))")
    assert shown == f"blue {Path(brought.python).parents[1]}", "a script of the environment runs where it lies now"
    assert hosts.ready(hosts.environment()).source == "there"


@pytest.mark.parametrize(
    "what",
    [
        "archive",
        pytest.param("short", marks=pytest.mark.soak),
        pytest.param("manifest", marks=pytest.mark.soak),
        "gone",
    ],
)
def test_a_broken_cache_is_said_and_made_anew(hosts: Hosts, what: str) -> None:
    first = hosts.environment()
    hosts.ready(first)
    hosts.kept(first)
    (packed,) = hosts.archives()
    data = bytearray(packed.read_bytes())
    if what == "archive":
        data[len(data) // 2] ^= 1
        packed.write_bytes(data)
    elif what == "short":
        packed.write_bytes(data[:-10])
    elif what == "gone":
        packed.unlink()
    else:
        (packed.parent / "manifest.json").write_text('{"sha256": ')
    hosts.rent()
    second = hosts.environment()
    assert hosts.ready(second).source == "made"
    assert any("the cached one cannot be used" in line for line in hosts.said), hosts.said
    hosts.kept(second)
    hosts.rent()
    assert hosts.ready(hosts.environment()).source == "cache", "it is kept anew"


def test_two_that_make_it_at_the_same_time_do_each_other_no_harm(hosts: Hosts) -> None:
    together = [hosts.environment(), hosts.environment()]
    found: list[Ready] = []
    threads = [threading.Thread(target=lambda one=one: found.append(hosts.ready(one))) for one in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(one.source for one in found) == ["made", "there"], "on one host the second waits for the first"
    hosts.rent()
    elsewhere = hosts.environment()
    hosts.ready(elsewhere)
    for one in (*together, elsewhere):
        one.keep()
    wait_until(lambda: not any(one.keeping() for one in (*together, elsewhere)), 30, "all is kept")
    hosts.rent()
    assert hosts.ready(hosts.environment()).source == "cache"


def test_what_holds_a_secret_is_not_kept(hosts: Hosts, capfd: pytest.CaptureFixture[str]) -> None:
    leaky = hosts.environment("leaky\nquill\n")
    hosts.ready(leaky, INDEX_TOKEN=TOKEN)
    hosts.kept(leaky)
    said = capfd.readouterr().err
    assert "is not kept for the next attempt: venv/lib/" in said
    assert "leaky.py in it holds a secret" in said
    assert TOKEN not in said
    assert hosts.archives() == []


def test_a_large_one_is_brought_in_parts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_PART_BYTES", 100)
    made, brought = tmp_path / "made", tmp_path / "brought"
    (made / "deep" / "empty").mkdir(parents=True)
    for number in range(10):
        (made / "deep" / f"{number}.txt").write_text(f"{number}" * 40)
    (made / "link").symlink_to("deep/3.txt")
    cache, packed = Cache(str(tmp_path / "runs")), tmp_path / "packed"
    divided = archive.parts(made, archive.files_of(made))
    assert len(divided) >= 4
    parts = []
    for names in divided:
        archive.pack(made, names, packed, ())
        with tarfile.open(packed) as tar:
            # Of two tars that make one folder at the same time, one fails.
            assert tar.getnames()[0] in ("deep", "link"), "its folders come first"
        parts.append(cache.put("key", packed))
    assert cache.find("key") is None, "parts alone are nothing"
    cache.publish("key", Manifest(tuple(parts), str(made), 1.0))
    found = cache.find("key")
    assert found is not None
    cache.fetch("key", found, brought, threading.Event())
    assert archive.files_of(brought) == archive.files_of(made)
    assert (brought / "link").read_text() == "3" * 40


def test_what_the_training_installs_later_is_not_kept(hosts: Hosts) -> None:
    first = hosts.environment()
    made = hosts.ready(first)
    (Path(made.python).parents[1] / "later.txt").write_text("the training's")
    hosts.kept(first)
    (packed,) = hosts.archives()
    with tarfile.open(fileobj=io.BytesIO(packed.read_bytes())) as tar:
        assert not any(name.endswith("later.txt") for name in tar.getnames())


@pytest.mark.slow
def test_the_images_torch_is_taken_where_the_project_names_none(hosts: Hosts) -> None:
    ready = hosts.ready(hosts.environment())
    assert says(ready, "import torch; print(torch.__version__)").startswith("2.")
    assert "torch-99.0-py3-none-any.whl" not in hosts.index.fetched


def test_a_torch_of_another_version_is_the_projects_own(hosts: Hosts) -> None:
    ready = hosts.ready(hosts.environment("feather\ntorch==99.0\n", names_torch=True))
    assert says(ready, "import torch; print(torch.__version__)") == "99.0"
    assert ready.about["torch"] == "99.0"


def test_an_image_that_has_all_of_it_is_used_as_it_is(hosts: Hosts) -> None:
    ready = hosts.ready(hosts.environment("torch>=2.4\nnumpy\n", names_torch=True, needs_torch=True))
    assert (ready.source, ready.python) == ("system", sys.executable)


def test_an_image_with_another_python_is_passed_over(hosts: Hosts) -> None:
    others = [one for one in interpreters.other_pythons() if one.minor != f"3.{sys.version_info[1]}"]
    if not others:
        pytest.skip("no other Python is here")
    ready = hosts.ready(hosts.environment("quill\n", python=f"=={others[0].minor}.*"))
    assert says(ready, "import sys, quill; print('%d.%d' % sys.version_info[:2])") == others[0].minor


def bare(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which no Python has torch."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(interpreters, "_PLACES", (BASE,))
    monkeypatch.setenv("RUNCTL_IMAGE_PYTHON", BASE)
    monkeypatch.setattr(interpreters.sys, "executable", BASE)


def test_torch_is_installed_where_neither_the_project_nor_the_image_has_it(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare(hosts, monkeypatch)
    ready = hosts.ready(hosts.of(Environment(needs_torch=True, torch="99.0")))
    assert says(ready, "import torch; print(torch.__version__)") == "99.0"
    ready = hosts.ready(hosts.environment("quill\n", needs_torch=True, torch="99.0"))
    assert says(ready, "import torch, quill; print(torch.__version__)") == "99.0"


def test_system_says_what_to_do_where_there_is_no_torch(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    bare(hosts, monkeypatch)
    with pytest.raises(EnvironmentFailed, match=r"no interpreter of this host has torch: .*python_env=auto"):
        hosts.ready(hosts.of(Environment(needs_torch=True)))
    with pytest.raises(EnvironmentFailed, match=r"docker\.image=me/bare:1: none of its interpreters has torch: "):
        hosts.ready(hosts.of(Environment("docker", needs_torch=True, image="me/bare:1")))
    assert hosts.ready(hosts.of(Environment())).python == BASE, "a script without torch needs none"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("470.57.02, 8.9", "CUDA 12.8 needs the driver 525.60.13 or newer, and this host has 470.57.02"),
        ("570.86.15, 8.9", None),
        ("580.65.06, 12.0", None),
        ("[N/A], 8.9", None),
    ],
)
def test_a_driver_that_is_too_old_ends_it_before_ranks_start(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, row: str, why: str | None
) -> None:
    smi = hosts.folder / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(f"#!/bin/sh\necho '{row}'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}{os.pathsep}{os.environ['PATH']}")
    environment = hosts.environment("torch==99.0\n", names_torch=True)
    if why is None:
        assert hosts.ready(environment).about["cuda"] == "12.8"
    else:
        with pytest.raises(EnvironmentFailed, match=f"torch will not run here: {why}"):
            hosts.ready(environment)


def test_a_package_that_is_not_there_is_told_in_the_installers_words(hosts: Hosts) -> None:
    with pytest.raises(EnvironmentFailed, match=r"uv pip install .* ended with code 1:\n(.|\n)*nowhere"):
        hosts.ready(hosts.environment("nowhere==3\n"))
    assert hosts.archives() == []


def test_a_file_that_the_host_did_not_get_is_named(hosts: Hosts) -> None:
    with pytest.raises(EnvironmentFailed, match=r"uv\.lock is not on the host; is it ignored by git"):
        hosts.ready(hosts.of(Environment("uv", ("uv.lock",), "0" * 64)))


def test_a_stop_ends_the_installer_at_once(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = hosts.folder / "bin" / "uv"
    stand_in.parent.mkdir()
    stand_in.write_text(f"#!/bin/sh\ntouch {hosts.folder}/begun\nsleep 60 &\nsleep 60\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}")
    began = time.monotonic()
    stopped = (hosts.folder / "begun").exists
    assert hosts.environment().prepare({}, lambda: None, stopped) is None
    assert time.monotonic() - began < 20


def test_the_projects_own_package_is_installed_each_time_and_never_kept(hosts: Hosts) -> None:
    (hosts.project / "backend.py").write_text(BACKEND)
    (hosts.project / "pyproject.toml").write_text(
        '[project]\nname = "bird"\nversion = "0.1"\nrequires-python = ">=3.10"\ndependencies = ["quill"]\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (hosts.project / "src").mkdir()
    (hosts.project / "src" / "bird.py").write_text("import quill\nSONG = 'old'\n")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([str(uv), "lock", "--quiet"], cwd=hosts.project, check=True, timeout=60)
    wanted = Environment("uv", ("uv.lock", "pyproject.toml"), "1" * 64)
    first = hosts.of(wanted)
    assert says(hosts.ready(first), "import bird; print(bird.SONG)") == "old"
    hosts.kept(first)
    hosts.index.close()
    hosts.rent()
    (hosts.project / "src" / "bird.py").write_text("import quill\nSONG = 'new'\n")
    second = hosts.ready(hosts.of(wanted))
    assert second.source == "cache"
    assert says(second, "import bird; print(bird.SONG)") == "new"
    (packed,) = hosts.archives()
    with tarfile.open(packed) as tar:
        assert not any("bird" in name for name in tar.getnames())


def test_the_hosts_conda_is_used_where_there_is_one(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for conda: no real one was at hand."""
    uv = Path(sys.executable).with_name("uv")
    stand_in = hosts.folder / "bin" / "conda"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\necho "$@" > {hosts.folder}/words\nexec {uv} venv -q --python {BASE} "$4"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}")
    (hosts.project / "environment.yml").write_text("dependencies: [python]\n")
    ready = hosts.ready(hosts.of(Environment("conda", ("environment.yml",), "3" * 64)))
    prefix = Path(ready.python).parents[1]
    told = (hosts.folder / "words").read_text().split()
    assert told == ["env", "create", "--prefix", str(prefix), "--file", str(hosts.project / "environment.yml")]
    assert says(ready, "import torch; print(torch.__version__)").startswith("2."), "the image's torch is lent"


def test_a_lock_whose_index_is_private_is_followed_with_the_setups_secrets(hosts: Hosts) -> None:
    private = Index(FILES, TOKEN)
    hosts.monkeypatch.delenv("UV_DEFAULT_INDEX")
    try:
        (hosts.project / "pyproject.toml").write_text(
            '[project]\nname = "bird"\nversion = "0"\nrequires-python = ">=3.10"\ndependencies = ["quill"]\n'
            f'[[tool.uv.index]]\nname = "team"\nurl = "{private.url}"\ndefault = true\n'
        )
        login = {"UV_INDEX_TEAM_USERNAME": USER, "UV_INDEX_TEAM_PASSWORD": TOKEN}
        lock = [str(Path(sys.executable).with_name("uv")), "lock", "--quiet"]
        subprocess.run(lock, cwd=hosts.project, check=True, timeout=60, env={**os.environ, **login})
        wanted = Environment("uv", ("uv.lock", "pyproject.toml"), "2" * 64)
        with pytest.raises(EnvironmentFailed, match=r"uv sync(.|\n)*401"):
            hosts.ready(hosts.of(wanted))
        with_it = hosts.of(wanted)
        assert says(hosts.ready(with_it, **login), "import quill; print(quill.INK)") == "blue"
        hosts.kept(with_it)
        assert len(hosts.archives()) == 1
    finally:
        private.close()


#: Builds an editable install without anything from an index.
BACKEND = """
import os, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "bird-0.1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        archive.writestr("bird.pth", os.path.abspath("src") + "\\n")
        archive.writestr("bird-0.1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: bird\\nVersion: 0.1\\n")
        archive.writestr("bird-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        archive.writestr("bird-0.1.dist-info/RECORD", "bird.pth,,\\nbird-0.1.dist-info/METADATA,,\\n")
    return name
build_wheel = build_editable
"""


def test_an_installer_that_is_not_there_is_brought_by_pip(tmp_path: Path) -> None:
    name, data = wheel("uvlike", "1.0", "", script="#!/bin/sh\necho here\n")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / name).write_bytes(data)
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "links")}
    commands = Commands(env, Scrubber(()), threading.Event())
    folder = tool(tmp_path, "uvlike", "uvlike>=1", commands)
    assert subprocess.check_output([folder / "bin" / "uvlike"]) == b"here\n"
    with pytest.raises(EnvironmentFailed, match="other is needed; install it in a setup line, or let pip reach it"):
        tool(tmp_path, "other", "other>=1", commands)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"fetching https://u:{TOKEN}@host/simple", "fetching https://***@host/simple"),
        (f"token {TOKEN}", "token ***"),
        ("https://user:pass%40word@host", "https://***@host"),
        ("git+ssh://git@host/x", "git+ssh://***@host/x"),
        ("a@b is no URL", "a@b is no URL"),
        ("it is p%40ss here", "it is *** here"),
    ],
)
def test_secrets_are_taken_out_of_what_is_shown(text: str, clean: str) -> None:
    assert Scrubber([TOKEN, "p@ss", "ab"]).clean(text) == clean
