"""The keeper of a rented host: it prepares it, runs the agent once, and ends the host whatever happened."""

from __future__ import annotations

import ast
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from rented import KEEPER, TIMEOUT_S, Host, bundle
from waiting import wait_until

from runctl.hosts.keeper import BringUpFailed, requirements, unpack
from runctl.hosts.room import make

AGENT = """
json.dump({"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}, open(home + "/seen", "w"))
print("once", file=open(home + "/runs", "a"))
"""


def wheel(path: Path, *needed: str) -> bytes:
    """A wheel of a package that is called runctl."""
    lines = "".join(f"Requires-Dist: {one}\n" for one in needed)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("runctl/__init__.py", "")
        archive.writestr("runctl-0.1.0.dist-info/METADATA", f"Name: runctl\n{lines}\nRequires-Dist: prose\n")
    return path.read_bytes()


@pytest.mark.parametrize("program", ["keeper.py", "room.py"])
def test_it_needs_no_more_than_python_3_8_and_the_standard_library(program: str) -> None:
    tree = ast.parse(KEEPER.with_name(program).read_text(), feature_version=(3, 8))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]  # type: ignore[union-attr]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert imported <= sys.stdlib_module_names


def test_the_agent_gets_its_project_its_package_and_its_order(host: Host, tmp_path: Path) -> None:
    host.describe(
        files=[
            host.files.add("project.tar.gz", bundle(train="1", lib__part="2"), "project"),
            host.files.add("runctl-0.1.0-py3-none-any.whl", wheel(tmp_path / "w.whl")),
        ],
        setup=["echo made > here", 'test "$COLOUR" = blue'],
        env={"COLOUR": "blue", "PYTHONPATH": "/theirs"},
        agent_python=host.agent(AGENT),
    )
    assert host.run() == 0, host.log
    seen = json.loads((host.home / "seen").read_text())
    order = host.home / "order.json"
    assert seen["argv"] == ["-m", "runctl.agent", "--order", str(order)]
    assert json.loads(order.read_text()) == {"run_dir": "x", "project_dir": str(host.home / "project")}
    assert seen["env"]["PYTHONPATH"] == f"{host.home / 'runctl'}:/theirs"
    assert seen["env"]["COLOUR"] == "blue"
    assert (host.home / "runctl" / "runctl" / "__init__.py").exists()
    assert (host.home / "project" / "lib" / "part.py").read_text() == "2"
    assert (host.home / "project" / "here").read_text() == "made\n"
    assert host.shutdowns == ["-P now"]
    assert (host.ended()["agent_exit_code"], host.ended()["bring_up_error"]) == (0, None)
    assert host.files.put == {}


@pytest.mark.parametrize(("keep_s", "deadline_s", "expected"), [(0, 3600, "now"), (600, 3600, "+10"), (600, 200, "+3")])
def test_a_failed_host_stays_as_long_as_was_asked_and_never_beyond_its_deadline(
    host: Host, keep_s: int, deadline_s: int, expected: str
) -> None:
    host.describe(agent_python=host.agent("sys.exit(3)"), keep_on_failure_s=keep_s, deadline=time.time() + deadline_s)
    assert host.run() == 3
    assert host.shutdowns == [f"-P {expected}"]


@pytest.mark.parametrize("code", [0, 71, 124, 130, 143])
def test_a_host_whose_attempt_was_stopped_or_succeeded_does_not_stay(host: Host, code: int) -> None:
    host.describe(agent_python=host.agent(f"sys.exit({code})"), keep_on_failure_s=600)
    assert host.run() == code
    assert host.shutdowns == ["-P now"]


@pytest.mark.parametrize(("code", "deadline_s", "expected"), [(0, 3600, "+59"), (3, 3600, "+59"), (143, 30, "now")])
def test_a_host_that_is_to_stay_stays_however_its_attempt_ends_until_its_deadline(
    host: Host, code: int, deadline_s: int, expected: str
) -> None:
    host.describe(agent_python=host.agent(f"sys.exit({code})"), keep_s=9000, deadline=time.time() + deadline_s)
    assert host.run() == code
    assert host.shutdowns == [f"-P {expected}"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ("sys.exit(0)", "+5"),
        ("sys.exit(3)", "+5"),
        ("sys.exit(137)", "+5"),  # a rank was out of memory
        ("sys.exit(71)", "now"),
        ("os.kill(os.getpid(), 9)", "now"),
        ("os.kill(os.getpid(), 11)", "now"),  # an agent that crashed has had no last word
    ],
)
def test_a_warm_host_waits_for_the_next_run_and_no_longer(host: Host, ends: str, expected: str) -> None:
    host.describe(agent_python=host.agent(ends), keep_warm_s=300)
    host.run()
    assert host.shutdowns == [f"-P {expected}"]


def test_a_wait_has_an_end_of_its_own_whatever_else_would_keep_or_end_the_host(host: Host) -> None:
    words = {"keep_warm_s": 300, "keep_on_failure_s": 900, "deadline": time.time() + 100}
    host.describe(agent_python=host.agent("sys.exit(3)"), **words)
    host.run()
    assert host.shutdowns == ["-P +5"], "not 15 minutes for a look, nor the 100 s that the run before had left"


def test_a_host_that_cannot_serve_the_next_run_stays_for_a_look(host: Host) -> None:
    host.describe(agent_python="/nowhere/python", keep_warm_s=300, keep_on_failure_s=900)
    host.run()
    assert host.shutdowns == ["-P +15"]


def test_a_warm_host_that_is_asked_to_end_does_not_wait(host: Host) -> None:
    host.describe(agent_python=host.agent("time.sleep(60)"), keep_warm_s=300)
    keeper = host.keep()
    wait_until((host.home / "order.json").exists, TIMEOUT_S, "it starts the agent")
    time.sleep(0.5)
    keeper.terminate()
    keeper.wait(20)
    assert host.shutdowns == ["-P now"]


def test_the_keeper_of_the_next_run_waits_for_the_last_word_of_the_one_before(host: Host) -> None:
    """Or else that one's short wait for a next run would end the host in the middle of it."""
    host.describe(agent_python=host.agent(AGENT))
    with (host.home.parent.parent / "host.lock").open("w") as before:
        fcntl.flock(before, fcntl.LOCK_EX)
        keeper = host.keep()
        time.sleep(1.0)
        assert not (host.home / "seen").exists()
        assert host.shutdowns == []
    assert keeper.wait(20) == 0
    assert (host.home / "seen").exists()


# --- end ---


def test_an_attempt_that_waits_for_its_host_is_ended_and_never_begins(host: Host) -> None:
    """Its launcher goes on elsewhere: it must not come back when the host is free."""
    host.describe(agent_python=host.agent(AGENT))
    with (host.home.parent.parent / "host.lock").open("a") as before:
        fcntl.flock(before, fcntl.LOCK_EX)
        Path(before.name).write_text("/another/a1")
        keeper = host.keep()
        wait_until((host.home / "pid").exists, TIMEOUT_S, "it waits for the host")
        assert host.keep("end").wait(TIMEOUT_S) == 3  # the host is another's
        assert keeper.wait(TIMEOUT_S) == -signal.SIGTERM
    assert host.keep("start").wait(TIMEOUT_S) == 0
    assert host.run() == 0
    assert not (host.home / "seen").exists()
    assert host.shutdowns == []


def test_an_attempt_that_is_ended_before_it_comes_never_begins(host: Host) -> None:
    host.describe(agent_python=host.agent(AGENT))
    assert host.keep("end").wait(TIMEOUT_S) == 0
    assert host.keep("start").wait(TIMEOUT_S) == 0
    assert host.run() == 0
    assert not (host.home / "seen").exists()
    assert host.ended()["why"] == "it was given up"


def test_an_attempt_that_trains_is_ended_like_by_a_signal_and_its_own_host_is_not_anothers(host: Host) -> None:
    leave = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit(143)))"
    host.describe(agent_python=host.agent(f"{leave}\nopen(home + '/ready', 'w')\ntime.sleep(300)"))
    keeper = host.keep()
    wait_until((host.home / "ready").exists, TIMEOUT_S, "the agent runs")
    assert host.keep("end").wait(TIMEOUT_S) == 0
    assert keeper.wait(TIMEOUT_S) == 143
    assert host.ended()["agent_exit_code"] == 143
    assert host.keep("end").wait(TIMEOUT_S) == 0  # one that has ended is left as it is
    assert host.ended()["agent_exit_code"] == 143


# --- room ---


def left(home: Path, *, ended: bool = True, collect_s: float = 0.0, collected: bool = False) -> Path:
    """What an attempt leaves."""
    (home / "project" / "checkpoints").mkdir(parents=True)
    (home / "project" / "checkpoints" / "step-1.pt").write_text("heavy")
    (home / "project.tar.gz").write_text("heavy")
    (home / "bring-up.log").write_text("small")
    (home / "host.json").write_text(json.dumps({"collect_s": collect_s}))
    for name, there in (("ended.json", ended), ("collected", collected)):
        if there:
            (home / name).write_text("{}")
    return home


def names(home: Path) -> set[str]:
    return {one.name for one in home.iterdir()}


def test_the_next_attempt_has_the_room_of_those_that_ended(host: Host, tmp_path: Path) -> None:
    root = host.home.parents[1]
    before = left(root / "earlier" / "a1")
    (before / "link").symlink_to(tmp_path)
    (root / ".parcels").mkdir()
    wheel(tmp_path / "w.whl")
    with zipfile.ZipFile(tmp_path / "w.whl", "a") as archive:
        archive.write(KEEPER.with_name("room.py"), "runctl/hosts/room.py")
    sent = host.files.add("runctl-0.1.0-py3-none-any.whl", (tmp_path / "w.whl").read_bytes())
    host.describe(files=[sent], agent_python=host.agent(AGENT))
    assert host.run() == 0, host.log
    assert names(before) == {"bring-up.log", "host.json", "ended.json"}
    assert (host.home / "project").exists() and (root / ".parcels").exists() and (tmp_path / "w.whl").exists()
    assert str(before / "project") in host.log


def test_what_lies_on_the_host_alone_stays_until_it_is_collected(tmp_path: Path) -> None:
    lives = left(tmp_path / "lives" / "a1", ended=False)
    waits = left(tmp_path / "waits" / "a1", collect_s=60.0)
    done = left(tmp_path / "done" / "a1", collect_s=60.0, collected=True)
    again = [left(tmp_path / "again" / "a1", collected=True), left(tmp_path / "again" / "a2", ended=False)]
    mine = left(tmp_path / "mine" / "a2", ended=False)
    left(tmp_path / "mine" / "a1", collect_s=60.0, collected=True)
    for run in ("lives", "waits", "done", "again", "mine"):
        (tmp_path / ".runs" / run / "checkpoints").mkdir(parents=True)
    (tmp_path / "given-up" / "a1").mkdir(parents=True)
    (tmp_path / "given-up" / "a1" / "ended.json").write_text("{}")
    make(mine)
    for one in (lives, waits, again[1], mine):
        assert (one / "project" / "checkpoints" / "step-1.pt").exists(), one
    for one in (done, again[0], tmp_path / "mine" / "a1"):
        assert not (one / "project").exists(), one
    assert names(tmp_path / ".runs") == {"lives", "waits", "again", "mine"}


def test_an_agent_that_is_killed_ends_the_host(host: Host) -> None:
    host.describe(agent_python=host.agent("os.kill(os.getpid(), signal.SIGKILL)"))
    assert host.run() == 137
    assert host.shutdowns == ["-P now"]


def test_an_agent_that_cannot_begin_has_its_words_sent(host: Host) -> None:
    host.describe(agent_python=host.agent("sys.exit('no module named torch')"))
    assert host.run() == 1
    assert b"no module named torch" in host.files.put["bring-up.log"]
    assert host.shutdowns == ["-P now"]


def test_an_interpreter_that_is_not_there_ends_the_host(host: Host) -> None:
    host.describe(agent_python="/nowhere/python")
    assert host.run() == 1
    assert "/nowhere/python" in host.ended()["bring_up_error"]
    assert host.shutdowns == ["-P now"]


def test_a_description_that_cannot_be_read_ends_the_host(host: Host) -> None:
    (host.home / "host.json").write_text("{")
    assert host.run() == 1
    assert host.shutdowns == ["-P now"]


def test_a_setup_line_that_fails_is_named_and_its_output_sent(host: Host) -> None:
    host.describe(setup=["true", "echo why it failed; exit 7"], agent_python=host.agent(AGENT))
    assert host.run() == 1
    assert host.ended()["bring_up_error"] == "setup line 2 ended with code 7: echo why it failed; exit 7"
    assert b"why it failed\n" in host.files.put["bring-up.log"]
    assert not (host.home / "seen").exists()
    assert host.shutdowns == ["-P now"]


@pytest.mark.slow
def test_a_failure_is_told_on_the_console_too_where_storage_cannot_be_reached(host: Host) -> None:
    host.describe(setup=["echo why it failed; exit 7"], log_url="http://127.0.0.1:9/?X-Amz-Signature=s3cret")
    assert host.run() == 1
    told = (host.folder / "console").read_text()
    assert "why it failed\n" in told
    assert "bring-up failed: setup line 1 ended with code 7" in told
    assert "s3cret" not in told


def test_a_console_that_cannot_be_written_is_no_reason_to_stay(host: Host) -> None:
    host.env["RUNCTL_CONSOLE"] = str(host.folder)
    host.describe(setup=["exit 7"])
    assert host.run() == 1
    assert b"ended with code 7" in host.files.put["bring-up.log"]
    assert host.shutdowns == ["-P now"]


def test_only_the_last_of_a_long_log_is_sent_again_if_need_be(host: Host) -> None:
    host.describe(setup=["yes | head -c 1000000; echo the end", "false"])
    host.files.troubles = [503, 503]
    assert host.run() == 1
    sent = host.files.put["bring-up.log"]
    assert len(sent) == 256 << 10 and b"the end" in sent


def test_a_bring_up_that_takes_too_long_is_ended_with_all_it_started(host: Host) -> None:
    host.describe(setup=["sleep 300 & echo $! > pid; wait"], bring_up_s=2)
    began = time.monotonic()
    assert host.run() == 1
    assert time.monotonic() - began < 20
    assert "bring_up_s=2" in host.ended()["bring_up_error"]
    assert host.shutdowns == ["-P now"]
    pid = int((host.home / "project" / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), TIMEOUT_S, "the setup line's child is gone")


def test_a_download_that_hangs_is_cut_off_with_the_bring_up(host: Host) -> None:
    host.files.slow_s = 300
    host.describe(files=[host.files.add("project.tar.gz", bundle(train="1"), "project")], bring_up_s=1)
    assert host.run() == 1
    assert host.shutdowns == ["-P now"]


def test_sigterm_while_the_host_is_prepared_ends_it(host: Host) -> None:
    host.describe(setup=["touch there; sleep 300"], keep_on_failure_s=600)
    keeper = host.keep()
    wait_until((host.home / "project" / "there").exists, TIMEOUT_S, "the setup line runs")
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(TIMEOUT_S) == 1
    assert "SIGTERM" in host.ended()["bring_up_error"]
    assert host.shutdowns == ["-P now"]


def test_sigterm_reaches_the_agent_and_the_host_waits_for_it(host: Host) -> None:
    leave = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), open(home + '/saved', 'w'), sys.exit(143)))"
    host.describe(agent_python=host.agent(f"{leave}\nopen(home + '/ready', 'w')\ntime.sleep(300)"), bring_up_s=5)
    keeper = host.keep()
    wait_until((host.home / "ready").exists, TIMEOUT_S, "the agent runs")
    time.sleep(6)  # the time for the bring-up is over, and means nothing any more
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(TIMEOUT_S) == 143
    assert (host.home / "saved").exists()
    assert host.shutdowns == ["-P now"]


def test_what_is_temporary_lies_on_disk_where_all_else_lies(host: Host) -> None:
    host.describe(agent_python=host.agent("open(home + '/seen', 'w').write(os.environ['TMPDIR'])"))
    host.run()
    temporary = Path((host.home / "seen").read_text())
    assert temporary == host.folder / "root" / "tmp"
    assert temporary.stat().st_mode & 0o777 == 0o700


def test_a_keeper_that_is_killed_is_not_started_again(host: Host) -> None:
    host.describe(agent_python=host.agent(AGENT + "time.sleep(300)"))
    assert host.keep("start").wait(TIMEOUT_S) == 0
    wait_until((host.home / "runs").exists, TIMEOUT_S, "the agent runs")
    os.kill(int((host.home / "pid").read_text()), signal.SIGKILL)
    assert host.keep("start").wait(TIMEOUT_S) == 0
    time.sleep(1)
    assert (host.home / "runs").read_text() == "once\n"
    assert host.shutdowns == []  # the dead man's switch is all there is now


def test_the_dead_mans_switch_is_armed_for_the_deadline_before_anything_else(host: Host) -> None:
    host.describe(agent_python=host.agent(AGENT), deadline=time.time() + 7_190)
    host.run()
    assert (host.folder / "shutdown").read_text().splitlines()[0] == "-P +120"


def test_a_shutdown_that_fails_is_tried_again(host: Host) -> None:
    host.program(
        "shutdown", f"#!/bin/sh\necho $@ >> {host.folder}/shutdown; test $(wc -l < {host.folder}/shutdown) = 4"
    )
    host.describe(agent_python=host.agent(AGENT))
    assert host.run() == 0
    assert host.shutdowns == ["-P now"] * 3


# --- start ---


def test_five_starts_at_once_start_one_agent_and_so_do_later_ones(host: Host) -> None:
    host.describe(agent_python=host.agent(AGENT + "time.sleep(3)"))
    began = time.monotonic()
    starts = [host.keep("start") for _ in range(5)]
    assert [start.wait(TIMEOUT_S) for start in starts] == [0] * 5
    assert time.monotonic() - began < 20
    wait_until(lambda: host.shutdowns, TIMEOUT_S, "the host ends")
    assert host.keep("start").wait(TIMEOUT_S) == 0
    assert host.run() == 0  # nor does another keeper, started by hand
    time.sleep(0.5)
    assert (host.home / "runs").read_text() == "once\n"
    assert host.shutdowns == ["-P now"]


def test_start_comes_back_though_its_output_is_a_pipe_and_the_agent_lives(host: Host) -> None:
    host.describe(agent_python=host.agent(AGENT + "time.sleep(300)"))
    began = time.monotonic()
    said = subprocess.run(
        [sys.executable, str(KEEPER), "start", str(host.home)], env=host.env, capture_output=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert said.returncode == 0 and b"is started" in said.stdout
    assert time.monotonic() - began < 20
    wait_until((host.home / "runs").exists, TIMEOUT_S, "the agent runs")


# --- downloads ---


def test_a_download_that_breaks_off_goes_on_from_there(host: Host) -> None:
    data = bundle(train="x = 1\n") + os.urandom(100_000)
    host.describe(files=[host.files.add("data.bin", data)], agent_python=host.agent(AGENT))
    host.files.troubles = [-40_000, 503, -10_000]
    assert host.run() == 0, host.log
    assert [begin for _, begin in host.files.asked] == [0, 40_000, 40_000, 50_000]
    assert (host.home / "data.bin").read_bytes() == data


@pytest.mark.slow
def test_a_file_that_is_not_the_one_expected_is_never_used(host: Host) -> None:
    described = host.files.add("project.tar.gz", bundle(train="1"), "project")
    host.files.data["project.tar.gz"] = bundle(train="2")
    host.describe(files=[described], agent_python=host.agent(AGENT))
    assert host.run() == 1
    assert "SHA-256" in host.ended()["bring_up_error"]
    assert len(host.files.asked) >= 5
    assert not (host.home / "project").exists() and not (host.home / "seen").exists()


@pytest.mark.slow
@pytest.mark.parametrize("troubles", [[403], [503] * 9])
def test_a_link_that_does_not_work_is_told_without_its_signature(host: Host, troubles: list[int]) -> None:
    host.describe(files=[host.files.add("project.tar.gz", b"x", "project")], log_url=None)
    host.files.troubles = [*troubles]
    assert host.run() == 1
    assert len(host.files.asked) == (1 if troubles == [403] else 5)
    assert f"HTTP {troubles[0]}" in host.ended()["bring_up_error"]
    for text in (host.log, str(host.ended())):
        assert "/project.tar.gz" in text and "s3cret" not in text and "Signature" not in text


# --- archives ---


def archive(path: Path, *members: tuple[str, bytes, str]) -> Path:
    """A tar.gz of members: name, type, and where a link leads."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, 0o4755
            info.size = 1 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"x"))
    return path


@pytest.fixture(params=["of the standard library", "of our own"])
def check(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "of our own":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    elif not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python has none")
    return str(request.param)


@pytest.mark.parametrize(
    "members",
    [
        [("../out", tarfile.REGTYPE, "")],
        [("a/../../out", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "/etc")],
        [("link", tarfile.SYMTYPE, "../..")],
        [("link", tarfile.LNKTYPE, "../out")],
        [("top", tarfile.SYMTYPE, "."), ("a", tarfile.SYMTYPE, "top/.."), ("a/out", tarfile.REGTYPE, "")],
        [("device", tarfile.CHRTYPE, "")],
        [("pipe", tarfile.FIFOTYPE, "")],
    ],
)
def test_an_archive_that_reaches_outside_is_refused(
    check: str, tmp_path: Path, members: list[tuple[str, bytes, str]]
) -> None:
    below = tmp_path / "below"
    below.mkdir()
    with pytest.raises(BringUpFailed):
        unpack(archive(below / "evil.tar.gz", *members), below / "project")
    assert not (below / "project").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["below"]
    assert not (below / "out").exists()


def test_an_archive_with_links_inside_is_unpacked_without_its_owners_rights(check: str, tmp_path: Path) -> None:
    members = [
        ("lib", tarfile.DIRTYPE, ""),
        ("lib/a.py", tarfile.REGTYPE, ""),
        ("b.py", tarfile.SYMTYPE, "lib/a.py"),
        ("lib/c.py", tarfile.SYMTYPE, "../b.py"),
        ("d.py", tarfile.LNKTYPE, "lib/a.py"),
    ]
    unpack(archive(tmp_path / "good.tar.gz", *members), tmp_path / "project")
    for name in ("lib/a.py", "b.py", "lib/c.py", "d.py"):
        assert (tmp_path / "project" / name).read_text() == "x"
    assert (tmp_path / "project" / "lib" / "a.py").stat().st_mode & 0o7000 == 0


@pytest.mark.parametrize("cut", [0, 20])
def test_an_archive_that_is_cut_off_is_refused(check: str, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "torn.tar.gz"
    path.write_bytes(bundle(train="x" * 100)[:cut])
    with pytest.raises(BringUpFailed, match=r"torn\.tar\.gz"):
        unpack(path, tmp_path / "project")


# --- the agent's interpreter ---


def test_what_the_agent_needs_is_all_but_torch_and_the_extras(tmp_path: Path) -> None:
    needed = ["torch>=2.4", "torch-fidelity", "psutil>=5.9", 'runpod==1.12.0; extra == "runpod"', "Torch (>2)"]
    wheel(tmp_path / "w.whl", *needed)
    assert requirements(tmp_path / "w.whl") == ["torch-fidelity", "psutil>=5.9"]


def test_the_hosts_own_choice_of_an_interpreter_is_taken_where_none_is_told(host: Host) -> None:
    host.env["RUNCTL_AGENT_PYTHON"] = host.agent(AGENT)
    host.describe()
    assert host.run() == 0
    assert (host.home / "runs").exists()


@pytest.mark.slow
def test_without_one_an_environment_is_made(host: Host, tmp_path: Path) -> None:
    data = wheel(tmp_path / "w.whl")
    with zipfile.ZipFile(tmp_path / "w.whl", "a") as archive:
        archive.writestr("runctl/agent.py", f"import sys; open({str(host.home / 'prefix')!r}, 'w').write(sys.prefix)")
    data = (tmp_path / "w.whl").read_bytes()
    host.describe(files=[host.files.add("runctl-0.1.0-py3-none-any.whl", data)], bring_up_s=150)
    assert host.keep().wait(170) == 0, host.log
    made = Path((host.home / "prefix").read_text())
    assert made.parent == host.home.parent.parent, "the next run on this host finds it again"
    assert (made / "ready").exists()


@pytest.mark.slow
def test_an_environment_that_cannot_be_made_is_told_with_what_to_do(host: Host, tmp_path: Path) -> None:
    data = wheel(tmp_path / "w.whl", f"needed @ file://{tmp_path}/not-there-1.0-py3-none-any.whl")
    host.describe(files=[host.files.add("runctl-0.1.0-py3-none-any.whl", data)], bring_up_s=150)
    assert host.keep().wait(170) == 1
    assert "agent_python" in host.ended()["bring_up_error"]
    assert b"not-there" in host.files.put["bring-up.log"]
