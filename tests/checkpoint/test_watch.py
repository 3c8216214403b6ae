"""What of a script's files counts as a checkpoint, how it is kept, and how it comes back."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from runctl.agent.metrics import MetricsLog
from runctl.agent.watcher import Watcher
from runctl.checkpoint import manifest as manifests
from runctl.checkpoint import watch, watched
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.manifest import FileEntry, Manifest, Watched
from runctl.errors import CheckpointCorrupt
from runctl.spec import CheckpointPolicy, LaunchSpec, Program, Retention, RunIdentity


def saved(step: int = 1, size: int = 5000) -> bytes:
    """What torch.save writes, random states among it."""
    buffer = io.BytesIO()
    torch.save({"step": step, "weights": torch.arange(size), "random": torch.get_rng_state()}, buffer)
    return buffer.getvalue()


def safetensors(payload: bytes = bytes(64), **more: object) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}, **more}).encode()
    return len(header).to_bytes(8, "little") + header + payload


def write(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def only(workdir: Path, pattern: str) -> watch.Candidate:
    [candidate] = watch.candidates(watch.units(workdir, pattern))
    return candidate


def blank(step: int) -> Manifest:
    return Manifest("run", 1, step, 0, 1, manifests.best_hash(), {})


# --- what is whole ---


def test_every_truncation_of_a_torch_file_is_found(tmp_path: Path) -> None:
    data = saved()
    path = write(tmp_path / "a.pt", data)
    assert watch.structure(path) is True
    cuts = {0, 1, 3, 4, len(data) - 1, *random.Random(3).sample(range(len(data)), 60)}
    assert [cut for cut in cuts if watch.structure(write(path, data[:cut])) is not False] == []


def test_every_truncation_of_a_safetensors_file_is_found(tmp_path: Path) -> None:
    data = safetensors()
    path = write(tmp_path / "a.safetensors", data)
    assert watch.structure(path) is True
    assert [cut for cut in range(len(data)) if watch.structure(write(path, data[:cut])) is not False] == []
    assert watch.structure(write(path, data + b"x")) is False
    assert watch.structure(write(path, safetensors(__metadata__={"format": "pt"}))) is True


@pytest.mark.parametrize("header", [b"[]", b"{", b'{"w": 1}', b'{"w": {"data_offsets": []}}', b"\xff\xff"])
def test_a_header_that_is_none_is_not_whole(tmp_path: Path, header: bytes) -> None:
    assert watch.structure(write(tmp_path / "a.safetensors", len(header).to_bytes(8, "little") + header)) is False


def test_a_kind_that_does_not_tell_is_neither_whole_nor_broken(tmp_path: Path) -> None:
    assert watch.structure(write(tmp_path / "a.pkl", b"\x80\x04K\x01.")) is None
    assert watch.structure(write(tmp_path / "a.pt", b"\x80\x02legacy")) is None
    assert watch.structure(write(tmp_path / "a.json", b'{"a": 1}')) is True
    assert watch.structure(write(tmp_path / "a.json", b'{"a": ')) is False


def test_a_folder_is_whole_when_all_in_it_is_and_nothing_lacks(tmp_path: Path) -> None:
    def state() -> bool | None:
        return watch.whole(tmp_path, watch.units(tmp_path, "checkpoint-*")[0])

    folder = tmp_path / "checkpoint-5"
    write(folder / "optimizer.pt", saved())
    assert state() is True
    write(folder / "training_args.bin", saved())
    assert state() is False, "Transformers writes trainer_state.json last"
    write(folder / "trainer_state.json", b"{}")
    assert state() is True
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    write(folder / "model.safetensors.index.json", json.dumps(index).encode())
    write(folder / "model-1-of-2.safetensors", safetensors())
    assert state() is False, "a shard of the index lacks"
    write(folder / "model-2-of-2.safetensors", safetensors()[:-1])
    assert state() is False
    write(folder / "model-2-of-2.safetensors", safetensors())
    assert state() is True
    write(folder / "sub/__0_0.distcp")
    assert state() is False
    write(folder / "sub/.metadata")
    assert state() is None


@pytest.mark.parametrize(
    ("name", "pattern", "number"),
    [
        ("ckpt/checkpoint-500", "ckpt/checkpoint-*", 500),
        ("epoch=3-step=120.ckpt", "*.ckpt", 120),
        ("epoch=3-val_loss=0.25.ckpt", "*.ckpt", 3),
        ("model_000200.pt", "*.pt", 200),
        ("100.pt", "*.pt", 100),
        ("global_step40", "global_step*", 40),
        ("out/7/model.pt", "out/*/model.pt", 7),
        ("run-3/last.pt", "run-3/*.pt", None),
        ("model-v2.pt", "model-v2.pt", None),
        ("resnet50.pt", "*.pt", None),
        ("loss=0.25.pt", "*.pt", None),
        ("last.pt", "*.pt", None),
    ],
)
def test_the_number_in_a_name(name: str, pattern: str, number: int | None) -> None:
    assert watch.number_in(name, pattern) == number


def test_links_hidden_names_and_the_excluded_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.pt", ".hidden.pt", "runs/b.pt", "dir/c.pt"):
        write(tmp_path / name)
    (tmp_path / "latest.pt").symlink_to("a.pt")
    found = watch.units(tmp_path, "**/*.pt", lambda path: path.is_relative_to(tmp_path / "runs"))
    assert [unit.path for unit in found] == ["a.pt", "dir/c.pt"]


def test_what_lies_in_a_folder_that_matches_is_part_of_it(tmp_path: Path) -> None:
    write(tmp_path / "out/checkpoint-1/deep/model.bin")
    [unit] = watch.units(tmp_path, "out/**")
    assert unit.path == "out"
    assert list(unit.files) == ["out/checkpoint-1/deep/model.bin"]


def test_files_of_one_number_are_one_checkpoint(tmp_path: Path) -> None:
    for name in ("model-10.pt", "optim-10.pt", "model-20.pt", "last.pt"):
        write(tmp_path / name)
        time.sleep(0.01)
    made = watch.candidates(watch.units(tmp_path, "*.pt"))
    assert [(one.number, one.paths) for one in made] == [
        (10, ["model-10.pt", "optim-10.pt"]), (20, ["model-20.pt"]), (None, ["last.pt"]),
    ]  # fmt: skip
    assert made[0].resume_path == "optim-10.pt", "what was written last"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_file_open_for_writing_is_seen_and_one_open_for_reading_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt")
    stamp = watch.stamp(path)
    with path.open("rb"):
        assert not watch.open_for_writing([os.getpid()], [stamp])
    with path.open("ab"):
        assert watch.open_for_writing([os.getpid()], [stamp])
    assert not watch.open_for_writing([os.getpid(), 1 << 30], [stamp])


# --- keeping and putting back ---


def test_what_is_kept_is_a_checkpoint_and_no_hard_link(tmp_path: Path) -> None:
    data = saved()
    path = write(tmp_path / "out/last.pt", data)
    folder = watched.keep(only(tmp_path, "out/*.pt"), tmp_path, tmp_path / "checkpoints", blank(7))
    manifest = manifests.verify(folder)
    assert manifest.watched == Watched(["out/last.pt"], "out/last.pt")
    assert list(manifest.files) == ["files/out/last.pt"]
    copy = folder / "files/out/last.pt"
    assert (copy.stat().st_nlink, path.stat().st_nlink) == (1, 1)
    with path.open("r+b") as file:
        file.write(b"overwritten in place")
    assert copy.read_bytes() == data
    manifests.verify(folder)


def test_a_file_overwritten_while_it_is_copied_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = write(tmp_path / "a.pt", saved(1)), write(tmp_path / "b.pt", saved(1))
    candidate = only(tmp_path, "*.pt")
    copy = watched.copy

    def overwriting(source: Path, target: Path) -> None:
        copy(source, target)
        if source == last:
            write(first, saved(2))

    monkeypatch.setattr(watched, "copy", overwriting)
    with pytest.raises(watched.Changed):
        watched.keep(candidate, tmp_path, tmp_path / "checkpoints", blank(1))
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_file_that_goes_while_it_is_copied_is_not_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", saved())
    candidate = only(tmp_path, "*.pt")
    path.unlink()
    with pytest.raises(watched.Changed):
        watched.keep(candidate, tmp_path, tmp_path / "checkpoints", blank(1))


def test_what_is_kept_is_never_torn_however_fast_it_is_overwritten(tmp_path: Path) -> None:
    """A process overwrites one file in place without a pause; every copy that is published loads."""
    script = (
        "import sys, torch\nstep = 0\nwhile True:\n    step += 1\n"
        "    torch.save({'w': torch.full((200_000 + step % 2,), step)}, sys.argv[1])\n"
    )
    path = tmp_path / "last.pt"
    with subprocess.Popen([sys.executable, "-c", script, str(path)]) as writer:
        try:
            kept = tries = 0
            deadline = time.monotonic() + 40
            while kept < 8 and time.monotonic() < deadline:
                time.sleep(0.002)
                found = watch.candidates(watch.units(tmp_path, "last.pt"))
                if not found or watch.whole(tmp_path, found[0].units[0]) is not True:
                    continue
                tries += 1
                try:
                    folder = watched.keep(found[0], tmp_path, tmp_path / "checkpoints", blank(kept))
                except watched.Changed:
                    continue
                kept += 1
                values = torch.load(folder / "files/last.pt", weights_only=True)["w"]
                assert len(values.unique()) == 1
                manifests.verify(folder)
        finally:
            writer.kill()
    assert kept, f"{tries} tries"


def test_files_come_back_where_they_were(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write(here / "ckpt/checkpoint-5/model.bin", b"five")
    write(here / "ckpt/checkpoint-5/sub/rng.pth", b"random")
    folder = watched.keep(only(here, "ckpt/checkpoint-*"), here, tmp_path / "checkpoints", blank(5))
    same = write(there / "ckpt/checkpoint-5/model.bin", b"five")
    write(there / "ckpt/checkpoint-5/sub/rng.pth", b"different")
    inode, said = same.stat().st_ino, []
    path = watched.put_back(folder, manifests.verify(folder), there, said.append)
    assert path == there / "ckpt/checkpoint-5"
    assert (path / "sub/rng.pth").read_bytes() == b"random"
    assert same.stat().st_ino == inode, "an identical file is left alone"
    assert len(said) == 1
    assert "sub/rng.pth is not what checkpoint step-000005 holds: replaced" in said[0]
    assert not list(there.rglob(".tmp-*"))


def test_what_a_killed_writer_left_is_put_out_of_the_way(tmp_path: Path) -> None:
    for step, content in ((5, saved()), (6, saved()[:-9])):
        write(tmp_path / f"checkpoint-{step}/model.pt", content)
        write(tmp_path / f"checkpoint-{step}/optim.pt", saved())
    write(tmp_path / "checkpoint-7/model.pt", saved())
    five = watch.candidates(watch.units(tmp_path, "checkpoint-5"))[0]
    manifest = manifests.read(watched.keep(five, tmp_path, tmp_path / "kept", blank(5)))
    said: list[str] = []
    watched.set_aside_broken(tmp_path, watch.units(tmp_path, "checkpoint-*"), manifest, said.append)
    assert sorted(p.name for p in tmp_path.glob("*checkpoint-*")) == [
        "bad-checkpoint-6", "bad-checkpoint-7", "checkpoint-5",
    ]  # fmt: skip
    assert len(said) == 2


def test_a_manifest_that_points_outside_is_refused(tmp_path: Path) -> None:
    for name in ("../x", "/etc/passwd", "files/../../x"):
        folder = tmp_path / "step-000001"
        folder.mkdir(exist_ok=True)
        text = manifests.dumps(Manifest("run", 1, 1, 0, 1, "blake2b", {"name": FileEntry(1, "0")}))
        (folder / manifests.NAME).write_text(text.replace('"name"', json.dumps(name)))
        with pytest.raises(CheckpointCorrupt, match="outside"):
            manifests.verify(folder)


def test_a_manifest_of_before_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "step-000001"
    folder.mkdir()
    old = {"run_id": "r", "attempt": 1, "step": 1, "epoch": 0, "world_size": 1, "hash": "blake2b", "files": {}}
    (folder / manifests.NAME).write_text(json.dumps(old))
    assert manifests.verify(folder).watched is None


def test_publishing_again_leaves_no_moment_without_a_checkpoint(tmp_path: Path) -> None:
    """The step's folder is swapped at once: a reader that looks without a pause always finds a manifest."""
    write(tmp_path / "w/a.pt", saved(1))
    folder = watched.keep(only(tmp_path / "w", "*.pt"), tmp_path / "w", tmp_path / "kept", blank(1))
    script = (
        f"import pathlib\np = pathlib.Path({str(folder / manifests.NAME)!r})\nwhile p.exists(): pass\nprint('gone')"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as reader:
        for step in range(30):
            write(tmp_path / "w/a.pt", saved(step))
            watched.keep(only(tmp_path / "w", "*.pt"), tmp_path / "w", tmp_path / "kept", blank(1))
        assert reader.poll() is None
        reader.kill()
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["step-000001"]


# --- the watcher ---


class Metrics:
    """The two things that a watcher asks the metrics."""

    step: int | None = None
    latest: dict[str, float | str] = {"loss": 0.5, "nothing": "nan"}  # noqa: RUF012


@pytest.fixture
def metrics() -> MetricsLog:
    return Metrics()  # type: ignore[return-value]


def watcher(tmp_path: Path, metrics: MetricsLog, pattern: str = "*.pt") -> Watcher:
    policy = CheckpointPolicy(watch=pattern, retention=Retention(keep_last=100))
    spec = LaunchSpec(RunIdentity("r", "r", str(tmp_path / "w" / "runs")), Program("train.py", None), checkpoint=policy)
    (tmp_path / "w").mkdir(exist_ok=True)
    return Watcher(spec, 1, 1, workdir=tmp_path / "w", catalog=Catalog(tmp_path / "kept"), metrics=metrics)


def end(watching: Watcher, *, clean: bool = True) -> None:
    watching.finish(clean=clean)
    deadline = time.monotonic() + 20
    while watching.working and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not watching.working


def kept(tmp_path: Path) -> list[int]:
    return Catalog(tmp_path / "kept").steps()


def wait_for(tmp_path: Path, steps: list[int], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while kept(tmp_path) != steps and time.monotonic() < deadline:
        time.sleep(0.02)
    assert kept(tmp_path) == steps


def test_what_lay_there_before_is_not_of_this_run(tmp_path: Path, metrics: MetricsLog) -> None:
    watching = watcher(tmp_path, metrics)
    write(tmp_path / "w/pretrained.pt", saved())
    watching.start(None)
    write(tmp_path / "w/mine.pt", saved())
    end(watching)
    manifest = manifests.verify(tmp_path / "kept/step-000001")
    assert list(manifest.files) == ["files/mine.pt"]
    assert manifest.metrics == {"loss": 0.5}


def test_a_file_is_kept_while_the_training_runs_each_time_it_is_overwritten(
    tmp_path: Path, metrics: MetricsLog
) -> None:
    watching = watcher(tmp_path, metrics)
    watching.start(None)
    for number in (1, 2, 3):
        write(tmp_path / "w/last.pt", saved(number))
        wait_for(tmp_path, list(range(1, number + 1)))
    end(watching)
    assert kept(tmp_path) == [1, 2, 3]


def test_a_file_still_open_or_growing_waits(tmp_path: Path, metrics: MetricsLog) -> None:
    watching = watcher(tmp_path, metrics, "*")
    watching.start(None)
    path = tmp_path / "w/state.pkl"
    script = "import sys,time\nf=open(sys.argv[1],'wb')\nf.write(b'half'); f.flush(); input(); f.write(b'whole')"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE) as writer:
        time.sleep(3.0)
        assert kept(tmp_path) == []
        writer.communicate(b"\n")
    wait_for(tmp_path, [1])
    end(watching)
    assert (tmp_path / "kept/step-000001/files/state.pkl").read_bytes() == b"halfwhole"


def test_one_look_that_takes_long_does_not_blind_for_long(
    tmp_path: Path, metrics: MetricsLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[float] = []
    at_once = watch.units

    def lost_its_processor(*args: object, **kwargs: object) -> list[watch.Unit]:
        if len(looked) == 1:
            time.sleep(0.5)
        looked.append(time.monotonic())
        return at_once(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(watch, "units", lost_its_processor)
    watching = watcher(tmp_path, metrics)
    watching.start(None)
    write(tmp_path / "w/last.pt", saved())
    wait_for(tmp_path, [1])  # at 50 times 0.5 s it would not be looked at before the deadline
    end(watching)


@pytest.mark.parametrize(("clean", "steps"), [(True, [1]), (False, [])])
def test_what_does_not_tell_that_it_is_whole_is_believed_after_a_clean_end_alone(
    tmp_path: Path, metrics: MetricsLog, clean: bool, steps: list[int]
) -> None:
    watching = watcher(tmp_path, metrics, "*.pkl")
    watching.start(None)
    write(tmp_path / "w/state.pkl")
    end(watching, clean=clean)
    assert kept(tmp_path) == steps


def test_a_torn_file_is_never_kept_and_the_one_before_stays(tmp_path: Path, metrics: MetricsLog) -> None:
    watching = watcher(tmp_path, metrics)
    watching.start(None)
    write(tmp_path / "w/last.pt", saved(1))
    wait_for(tmp_path, [1])
    write(tmp_path / "w/last.pt", saved(2)[:-100])
    end(watching, clean=False)
    assert kept(tmp_path) == [1]


def test_a_folder_that_lacks_what_its_like_has_is_not_kept_after_a_kill(tmp_path: Path, metrics: MetricsLog) -> None:
    watching = watcher(tmp_path, metrics, "checkpoint-*")
    watching.start(None)
    for name in ("model.pt", "optim.pt"):
        write(tmp_path / "w/checkpoint-10" / name, saved())
    wait_for(tmp_path, [10])
    write(tmp_path / "w/checkpoint-20/model.pt", saved())
    time.sleep(3)
    end(watching, clean=False)
    assert kept(tmp_path) == [10]


def test_steps_come_from_names_then_from_metrics_and_always_grow(tmp_path: Path, metrics: MetricsLog) -> None:
    watching = watcher(tmp_path, metrics)
    watching.start(None)
    write(tmp_path / "w/step-50.pt", saved())
    wait_for(tmp_path, [50])
    write(tmp_path / "w/last.pt", saved(2))
    wait_for(tmp_path, [50, 51])
    metrics.step = 70
    time.sleep(0.5)
    write(tmp_path / "w/last.pt", saved(3))
    wait_for(tmp_path, [50, 51, 70])
    write(tmp_path / "w/step-60.pt", saved())
    end(watching)
    assert kept(tmp_path) == [50, 51, 70, 71], "never one that would not be the newest"


def test_a_folder_that_changes_again_stays_the_same_step(tmp_path: Path, metrics: MetricsLog) -> None:
    watching = watcher(tmp_path, metrics, "checkpoint-*")
    watching.start(None)
    write(tmp_path / "w/checkpoint-10/model.pt", saved())
    wait_for(tmp_path, [10])
    write(tmp_path / "w/checkpoint-10/optim.pt", saved())
    end(watching)
    assert kept(tmp_path) == [10]
    assert len(manifests.verify(tmp_path / "kept/step-000010").files) == 2


def test_checkpoints_of_ours_are_never_watched(tmp_path: Path, metrics: MetricsLog) -> None:
    watching = watcher(tmp_path, metrics, "**/*.pt")
    watching.start(None)
    write(tmp_path / "w/runs/other/spec.json", b"{}")
    write(tmp_path / "w/runs/other/checkpoints/step-000001/data.pt", saved())
    write(tmp_path / "w/mine.pt", saved())
    end(watching)
    assert list(manifests.verify(tmp_path / "kept/step-000001").files) == ["files/mine.pt"]


def test_a_disk_that_refuses_does_not_end_the_watching(
    tmp_path: Path, metrics: MetricsLog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = watched.keep

    def refuse(*words: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watched, "keep", refuse)
    watching = watcher(tmp_path, metrics)
    watching.start(None)
    write(tmp_path / "w/last.pt", saved())
    time.sleep(1.5)
    monkeypatch.setattr(watched, "keep", keep)
    wait_for(tmp_path, [1])
    end(watching)
    assert capsys.readouterr().err.count("No space left on device") == 1
