"""A desk to launch from: an empty project, nobody's configuration, and short ways to ask for a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runctl.errors import RunctlError
from runctl.launch import launch


class Desk:
    """A project folder in which the test stands."""

    def __init__(self, folder: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.home = home
        self._capsys = capsys

    def project(self, text: str | bytes, name: str = "runctl.yaml") -> None:
        """Write a file of the project's configuration."""
        write(self.folder / "conf" / name, text)

    def user(self, text: str, name: str = "config.yaml") -> None:
        """Write a file of the user's configuration."""
        write(self.home / "runctl" / name, text)

    def run(self, *words: str) -> tuple[str, str]:
        """Standard output and standard error of a launch that must end with 0."""
        self._capsys.readouterr()
        assert launch(list(words)) == 0
        captured = self._capsys.readouterr()
        return captured.out, captured.err

    def plans(self, *words: str) -> list[dict[str, Any]]:
        """The JSON plans of a dry run, one for each run of a multirun. What Hydra reads comes first."""
        cut = words.index("--") if "--" in words else len(words)
        out, _ = self.run(*words[:cut], "dry_run=true", "output=json", *words[cut:])
        told = json.loads(out.splitlines()[-1])
        return told.get("plans", [told])

    def plan(self, *words: str) -> dict[str, Any]:
        """The JSON plan of a dry run."""
        [plan] = self.plans(*words)
        return plan

    def args(self, *words: str) -> dict[str, Any]:
        """What the plan says of the script's arguments: name to effective value."""
        return {name: arg["effective"] for name, arg in self.plan(*words)["args"].items()}

    def script_words(self, *words: str) -> list[str]:
        """The words that the script would be given."""
        argv = self.plan(*words)["plan"]["argv"]
        return argv[argv.index("script") + 2 :]

    def refusal(self, *words: str) -> str:
        """The text of the error with which a launch is refused, with the exit code of a usage error."""
        self._capsys.readouterr()
        with pytest.raises(RunctlError) as caught:
            launch(list(words))
        captured = self._capsys.readouterr()
        assert captured.out == "", "nothing is printed ahead of an error"
        assert "Error executing job" not in captured.err
        assert int(caught.value.exit_code) == 2
        text = str(caught.value)
        assert "$VALUE" not in text and "full_key" not in text
        return text


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    """An empty project with a `train.py`, and a home without configuration."""
    folder, home = tmp_path / "project", tmp_path / "home"
    write(folder / "train.py", "import sys\nprint(sys.argv[1:])\n")
    home.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    return Desk(folder, home, capsys)
