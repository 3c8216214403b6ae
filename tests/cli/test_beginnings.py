"""`runctl init`: what is guessed of a project, what is written, and that it launches as written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from made import Home

from runctl.beginnings import guess

LAUNCH = Path(sys.executable).with_name("runctl-launch")
TRAIN = """import argparse
import torch
parser = argparse.ArgumentParser()
parser.add_argument('--resume-from')
torch.save({}, 'x')
"""
DDP = "import torch\nimport torch.distributed as dist\nimport runctl\nck = runctl.attach(model=None)\n"


def project(home: Home, **scripts: str) -> Path:
    for name, text in scripts.items():
        path = home.folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return home.folder


def launch(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LAUNCH), *words], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scripts", "script", "trainer"),
    [
        ({"train": TRAIN, "model": "import torch\n"}, "train.py", "single"),
        ({"src__finetune_llm": DDP, "eval": "import torch\n"}, "src/finetune_llm.py", "ddp"),
        ({"main": "print('hi')", "scripts__train": TRAIN}, "scripts/train.py", "single"),
        ({"model": "import torch\nif __name__ == '__main__': pass\n", "test_train": TRAIN}, "model.py", "single"),
    ],
)
def test_the_training_is_guessed_from_names_and_text(
    home: Home, scripts: dict[str, str], script: str, trainer: str
) -> None:
    about = guess(project(home, **scripts))
    assert (about.script, about.trainer) == (script, trainer)


def test_what_it_writes_is_what_it_says_and_is_written_once(home: Home) -> None:
    folder = project(home, train=TRAIN, main="import torch\n")
    shown = home.runctl("init").stdout
    assert "script: train.py (a guess; it might be main.py)" in shown
    assert "Next: runctl-launch dry_run=true" in shown
    config, plugins = folder / "conf" / "runctl.yaml", folder / "runctl_plugins.py"
    assert "resume_flag: --resume-from" in config.read_text()
    config.write_text("script: mine.py\n")
    plugins.unlink()
    again = home.runctl("init").stdout
    assert "conf/runctl.yaml is there already, and stays as it is" in again
    assert config.read_text() == "script: mine.py\n"
    assert plugins.is_file()


def test_a_script_that_is_named_is_taken_and_one_that_is_not_there_is_said(home: Home) -> None:
    project(home, train=TRAIN, other=DDP)
    assert "there is no such file" in home.runctl("init", "none.py", expect=2).stderr
    told = json.loads(home.runctl("init", "other.py", "--json").stdout)
    assert (told["script"], told["trainer"], told["made"]) == (
        "other.py", "ddp", ["conf/runctl.yaml", "runctl_plugins.py"],
    )  # fmt: skip


def test_a_folder_without_a_training_gets_nothing(home: Home) -> None:
    assert "name it, as in `runctl init train.py`" in home.runctl("init", expect=2).stderr
    assert not (home.folder / "conf").exists()


@pytest.mark.parametrize("text", [TRAIN, DDP, "import torch, hydra\n@hydra.main()\ndef main(cfg): pass\n"])
def test_what_it_writes_launches_as_written(home: Home, text: str) -> None:
    folder = project(home, train=text)
    home.runctl("init")
    done = subprocess.run(
        [str(LAUNCH), "dry_run=true", "output=json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "train.py" in " ".join(json.loads(done.stdout)["plan"]["argv"])


def test_every_line_that_it_offers_is_one_that_runctl_knows(home: Home) -> None:
    folder = project(home, train=TRAIN)
    home.runctl("init")
    config = folder / "conf" / "runctl.yaml"
    lines = config.read_text().splitlines()
    offered = [line[2:] for line in lines if line.startswith("# ") and (line[2:].split(":")[0].strip() in KEYS)]
    assert len(offered) > 10
    config.write_text("\n".join([line for line in lines if not line.startswith("#")] + offered) + "\n")
    plugins = folder / "runctl_plugins.py"
    plugins.write_text(plugins.read_text().replace("\n# ", "\n").replace("\n#\n", "\n\n").replace("\n#\n", "\n\n"))
    done = launch(folder, "dry_run=true")
    assert done.returncode == 0, done.stderr
    listed = launch(folder, "plugins.list=true")
    assert "runctl_run_ended" in listed.stdout, listed.stderr


KEYS = ("args", "learning_rate", "batch_size", "checkpoint", "watch", "resume_flag", "resources", "gpus", "gpu",
        "limits", "max_time", "max_usd", "max_usd_per_day", "data", "inputs", "outputs")  # fmt: skip


def test_what_cannot_be_written_is_named(home: Home) -> None:
    folder = project(home, train=TRAIN)
    (folder / "conf").write_text("a file")
    assert "conf/runctl.yaml cannot be written" in home.runctl("init", expect=2).stderr
    (folder / "conf").unlink()
    (folder / "conf").symlink_to("nowhere")
    assert "File exists" in home.runctl("init", expect=2).stderr
