"""`runctl checkpoint`, on made-up run directories and made-up checkpoints."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from made import Home

from runctl import saves
from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.manifest import Manifest
from runctl.checkpoint.remote import RemoteCatalog
from runctl.checkpoint.sealed import place
from runctl.errors import ConfigError
from runctl.holdings import Holdings, check_resumed
from runctl.rundir import RunDir
from runctl.spec import CheckpointPolicy, LaunchSpec, Program, Retention, RunIdentity, RunState
from runctl.storage import open_store


def commit(folder: Path, step: int, data: bytes = b"weights", loss: float = 0.5) -> Path:
    """A finished checkpoint, written as a rank writes it."""
    aside = folder / f".tmp-{step}"
    aside.mkdir(parents=True)
    (aside / "data.pt").write_bytes(data)
    entry = manifests.hash_file(aside / "data.pt", "blake2b")
    files = {"data.pt": entry}
    return manifests.publish(aside, Manifest("run", 1, step, 0, 1, "blake2b", files, metrics={"loss": loss}))


def with_checkpoints(home: Home, *steps: int, state: RunState = RunState.STOPPED) -> RunDir:
    rundir = home.run("run", state=state)
    for step in steps:
        commit(Path(rundir.url) / "checkpoints", step, b"w" * step, loss=1 / step)
    return rundir


def answering(rundir: RunDir, *said: tuple[int | None, str]) -> threading.Thread:
    """An agent that answers the first save it is asked for."""

    def answer() -> None:
        deadline = time.monotonic() + 20
        while (request := saves.asked(rundir, 1)) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert request is not None
        for step, waiting in said:
            saves.answer(rundir, saves.SaveAnswer(request.id, step, waiting))
            time.sleep(0.8)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return thread


def test_a_running_run_saves_when_it_is_asked(home: Home) -> None:
    rundir = home.run("run", state=RunState.RUNNING)
    agent = answering(rundir, (None, ""), (120, ""))
    told = json.loads(home.runctl("checkpoint", "save", "run", "--json").stdout)
    agent.join()
    assert told == {"run_id": "run", "step": 120}


def test_a_save_that_cannot_be_had_says_why_and_gives_up_in_time(home: Home) -> None:
    rundir = home.run("run", state=RunState.RUNNING)
    agent = answering(rundir, (None, "its ranks do not look out for it"))
    result = home.runctl("checkpoint", "save", "run", "--timeout", "2s", expect=124)
    agent.join()
    assert "do not look out for it" in result.stderr and "still asked for" in result.stderr


def test_what_has_ended_is_not_asked(home: Home) -> None:
    with_checkpoints(home, 50)
    said = home.runctl("checkpoint", "save", "run", expect=2).stderr
    assert "does not run (stopped)" in said and "step 100" in said


def test_a_file_of_a_script_is_sealed_and_a_flipped_byte_is_found(home: Home) -> None:
    path = home.folder / "epoch-3.bin"
    path.write_bytes(b"PK" + bytes(range(256)) * 100)
    told = json.loads(home.runctl("checkpoint", "save", str(path), "--json").stdout)
    assert (told["files"], told["seal"]) == (1, str(place(path)))
    assert "whole, every byte" in home.runctl("checkpoint", "verify", "epoch-3.bin").stdout
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    assert "not those that were sealed" in home.runctl("checkpoint", "verify", "epoch-3.bin", expect=1).stdout


def test_a_folder_of_a_script_is_sealed_with_all_that_is_in_it(home: Home) -> None:
    folder = home.folder / "checkpoints[1]"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.txt").write_text("b")
    assert "2 files" in home.runctl("checkpoint", "save", "checkpoints[1]/").stdout
    (folder / "a.txt").unlink()
    (folder / "c.txt").write_text("c")
    said = home.runctl("checkpoint", "verify", "checkpoints[1]", expect=1).stdout
    assert "a.txt is not there" in said and "c.txt came later" in said


def test_what_is_not_whole_is_not_sealed(home: Home) -> None:
    (home.folder / "torn.pt").write_bytes(b"PK\x03\x04 torn")
    assert "not whole" in home.runctl("checkpoint", "save", "torn.pt", expect=70).stderr
    assert "has no seal" in home.runctl("checkpoint", "verify", "torn.pt", expect=70).stderr


def test_list_and_show_tell_of_each(home: Home) -> None:
    rundir = with_checkpoints(home, 20, 40)
    (Path(rundir.url) / "checkpoints/step-000020/data.pt").write_bytes(b"short")
    listed = json.loads(home.runctl("checkpoint", "list", "run", "--json").stdout)
    assert [(one["step"], one["size_bytes"]) for one in listed] == [(20, None), (40, 40)]
    assert "has 5 bytes" in listed[0]["trouble"] and listed[1]["trouble"] == ""
    shown = home.runctl("checkpoint", "list", "run").stdout
    assert "loss=0.025" in shown and max(map(len, shown.splitlines()[:-1])) <= 80
    assert "blake2b" in home.runctl("checkpoint", "show", "run").stdout
    assert json.loads(home.runctl("checkpoint", "show", "run", "40", "--json").stdout)["step"] == 40
    assert "there are 20, 40" in home.runctl("checkpoint", "show", "run", "30", expect=2).stderr


def test_verify_looks_at_every_byte(home: Home) -> None:
    rundir = with_checkpoints(home, 20, 40)
    (Path(rundir.url) / "checkpoints/step-000020/data.pt").write_bytes(b"v" * 20)
    told = json.loads(home.runctl("checkpoint", "verify", "run", "--json", expect=1).stdout)
    assert "not those that were written" in told[0]["trouble"] and told[1] == {"step": 40, "trouble": ""}
    home.runctl("checkpoint", "verify", "run", "40")


def test_pull_brings_the_newest_and_again_does_nothing(home: Home) -> None:
    with_checkpoints(home, 20, 40)
    told = json.loads(home.runctl("checkpoint", "pull", "run", "--to", "mine", "--json").stdout)
    assert told == {"step": 40, "path": "mine/step-000040"}
    assert manifests.verify(home.folder / "mine" / "step-000040").step == 40
    before = (home.folder / "mine/step-000040/data.pt").stat().st_ino
    home.runctl("checkpoint", "pull", "run", "--to", "mine")
    assert (home.folder / "mine/step-000040/data.pt").stat().st_ino == before


def test_prune_keeps_what_the_retention_says_and_the_two_newest(home: Home) -> None:
    rundir = with_checkpoints(home, 10, 20, 30, 40, 50)
    told = json.loads(home.runctl("checkpoint", "prune", "run", "--dry-run", "--json").stdout)
    assert (told["removed"], told["kept"]) == ([10, 20], [10, 20, 30, 40, 50])
    home.runctl("checkpoint", "prune", "run", "--keep-last", "1", "--keep-every", "20")
    assert RemoteCatalog(rundir.store).steps() == [20, 40, 50]


def test_prune_removes_nothing_while_one_of_the_two_newest_is_corrupt(home: Home) -> None:
    rundir = with_checkpoints(home, 10, 20, 30)
    (Path(rundir.url) / "checkpoints/step-000030/data.pt").write_bytes(b"v" * 30)
    home.runctl("checkpoint", "prune", "run", "--keep-last", "2", expect=70)
    assert RemoteCatalog(rundir.store).steps() == [10, 20, 30]


def test_a_run_that_goes_on_is_not_pruned(home: Home) -> None:
    home.run("run", state=RunState.RUNNING)
    assert "prunes by itself" in home.runctl("checkpoint", "prune", "run", expect=2).stderr


def test_those_that_were_carried_to_a_bucket_are_found_there(home: Home, s3: object, fresh_bucket: str) -> None:
    rundir = with_checkpoints(home, 20, 40)
    url = f"s3://{fresh_bucket}/copies"
    rundir.write_spec(replace(rundir.read_spec(), checkpoint=CheckpointPolicy(url=url)))
    there = RemoteCatalog(open_store(f"{url}/run"))
    there.publish(Path(rundir.url) / "checkpoints/step-000040", set())
    (Path(rundir.url) / "checkpoints/step-000040").rename(home.folder / "lost")
    listed = json.loads(home.runctl("checkpoint", "list", "run", "--json").stdout)
    assert [one["step"] for one in listed] == [20, 40]
    assert listed[1]["places"] == [f"{url}/run/checkpoints/step-000040"]
    assert "step 40: whole" in home.runctl("checkpoint", "verify", "run", "40").stdout
    assert "step 40 is in" in home.runctl("checkpoint", "pull", "run").stdout


def test_of_a_step_that_is_not_there_nothing_is_said_to_be_whole(home: Home) -> None:
    rundir = with_checkpoints(home, 20, 40)
    said = home.runctl("checkpoint", "verify", "run", "999", expect=2)
    assert "no checkpoint of step 999; there are 20, 40" in said.stderr and "whole" not in said.stdout
    assert "no checkpoint of step 999" in Holdings.of(rundir).trouble(999), "it may have been pruned just now"


def test_what_could_not_be_read_for_a_reason_nobody_foresaw_is_no_success(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store("memory://unforeseen/run")
    RemoteCatalog(store).publish(commit(tmp_path, 5), set())

    def fetch(*_: object) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(RemoteCatalog, "fetch", fetch)
    holdings = Holdings([store], Retention())
    with pytest.raises(RuntimeError, match="nobody foresaw"):
        holdings.trouble(5)
    with pytest.raises(RuntimeError, match="nobody foresaw"):
        holdings.pull(5, tmp_path / "mine")
    assert not (tmp_path / "mine" / "step-000005").exists()


def test_pull_never_hands_out_what_another_run_left_in_the_folder(home: Home) -> None:
    with_checkpoints(home, 40)
    home.runctl("checkpoint", "pull", "run")
    other = home.run("other")
    commit(Path(other.url) / "checkpoints", 40, b"other weights")
    said = home.runctl("checkpoint", "pull", "other", expect=70).stderr
    assert "is another checkpoint, of attempt 1 of run; choose another folder with --to" in said
    assert Path("checkpoints/step-000040/data.pt").read_bytes() == b"w" * 40, "it stays as it was"
    home.runctl("checkpoint", "pull", "other", "--to", "others")
    assert Path("others/step-000040/data.pt").read_bytes() == b"other weights"


def test_a_pruned_checkpoint_leaves_no_folder_behind(home: Home) -> None:
    rundir = with_checkpoints(home, 10, 20, 30, 40)
    home.runctl("checkpoint", "prune", "run", "--keep-last", "2")
    assert sorted(path.name for path in Path(rundir.url, "checkpoints").iterdir()) == ["step-000030", "step-000040"]


@pytest.mark.parametrize(
    ("step", "checkpoints", "code"), [(120, [50, 100], 1), (120, [50, 100, 120], 0), (100, [50, 100], 0)]
)
def test_a_save_that_the_end_forestalled_succeeds_only_if_nothing_is_lost(
    home: Home, monkeypatch: pytest.MonkeyPatch, step: int, checkpoints: list[int], code: int
) -> None:
    rundir = home.run("run", state=RunState.RUNNING, step=step)
    asked = saves.ask

    def ends_first(rundir: RunDir, attempt: int) -> saves.SaveRequest:
        request = asked(rundir, attempt)
        home.run("run", state=RunState.FAILED, step=step)
        rundir.write_status(RunState.FAILED, 1, step=step, checkpoints=checkpoints)
        return request

    monkeypatch.setattr(saves, "ask", ends_first)
    assert "has ended meanwhile (failed)" in home.runctl("checkpoint", "save", "run", expect=code).stderr
    assert rundir.exists()


def test_rm_takes_checkpoints_along_that_were_carried_away(home: Home) -> None:
    rundir = with_checkpoints(home, 20)
    away = home.folder / "copies"
    rundir.write_spec(replace(rundir.read_spec(), checkpoint=CheckpointPolicy(url=str(away))))
    RemoteCatalog(open_store(f"{away}/run")).publish(Path(rundir.url) / "checkpoints/step-000020", set())
    other = away / "run" / "spec.json"
    other.write_text("{}")
    said = home.runctl("rm", "run", "-f").stdout
    assert f"{away}/run/checkpoints, {rundir.url}" in said
    assert not Path(rundir.url).exists() and not (away / "run" / "checkpoints").exists()
    assert other.exists(), "what is no checkpoint may be another run's of that id"


@pytest.mark.parametrize("words", [("list", "run"), ("pull", "run"), ("show", "run")])
def test_a_run_without_checkpoints_says_so(home: Home, words: tuple[str, ...]) -> None:
    home.run("run")
    result = home.runctl("checkpoint", *words, expect=0 if words[0] == "list" else 2)
    assert "no checkpoint" in result.output + (result.stderr or "")


def test_one_that_was_carried_elsewhere_is_found_by_a_launch_that_asks_for_it(tmp_path: Path) -> None:
    url = str(tmp_path / "carried")
    RemoteCatalog(open_store(f"{url}/one")).publish(commit(tmp_path, 5), set())
    rundir = RunDir(f"{tmp_path}/one")  # of another machine's, and not here

    def look(resume: str, origin: str | None = None) -> None:
        policy = CheckpointPolicy(resume=resume, origin=origin, url=url)
        identity = RunIdentity("one", "one", str(tmp_path))
        check_resumed(LaunchSpec(identity, Program("train.py", None), checkpoint=policy), rundir)

    look("5")
    look("require")
    with pytest.raises(ConfigError, match=r"checkpoint\.resume=6: .*of step 6; there are 5"):
        look("6")
    url = str(tmp_path / "elsewhere")
    look("require", origin=str(tmp_path / "another"))
    with pytest.raises(ConfigError, match=r"checkpoint\.resume=require: .*no checkpoint; there are none"):
        look("require")
