"""A rank sees what it would see under plain python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from real_launches import Launcher

SEEN = """
    import json, sys
    main = sys.modules["__main__"]
    with open("seen.json", "w") as file:
        json.dump({
            "argv": sys.argv, "path0": sys.path[0], "path": sys.path, "name": __name__, "file": __file__,
            "main_file": main.__file__, "spec": __spec__ and __spec__.name, "package": __package__,
            "cached": __cached__, "loader": type(__loader__).__name__, "doc": __doc__,
            "same": main.__dict__ is globals(),
            "names": sorted({k for k in vars(main) if k.startswith("__")} - {"__annotations__"}),
        }, file)
"""


def plain(launcher: Launcher, *words: str) -> dict[str, Any]:
    subprocess.run([sys.executable, *words], cwd=launcher.project, check=True, timeout=60)
    return seen(launcher)


def seen(launcher: Launcher) -> dict[str, Any]:
    path = launcher.project / "seen.json"
    data: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return data


def test_a_script_sees_what_plain_python_shows_it(launcher: Launcher) -> None:
    script = launcher.script(SEEN, "sub/train.py")
    expected = plain(launcher, str(script), "--lr=0.1", "a b")
    assert launcher.run("--", "sub/train.py", "--lr=0.1", "a b")[0] == 0
    assert seen(launcher) == expected


def test_a_linked_script_finds_the_folder_of_its_target_first(launcher: Launcher) -> None:
    launcher.script(SEEN, "elsewhere/real.py")
    link = launcher.project / "link.py"
    link.symlink_to("elsewhere/real.py")
    expected = plain(launcher, str(link))
    assert launcher.run("script=link.py")[0] == 0
    assert seen(launcher) == expected


@pytest.mark.parametrize("name", ["pkg.train", "pkg"])
def test_a_module_sees_what_plain_python_shows_it(launcher: Launcher, name: str) -> None:
    launcher.script("", "pkg/__init__.py")
    launcher.script(SEEN, "pkg/train.py")
    launcher.script(SEEN, "pkg/__main__.py")
    expected = plain(launcher, "-m", name, "--lr=0.1")
    assert launcher.run(f"module={name}", "args.lr=0.1")[0] == 0
    assert seen(launcher) == expected


def test_the_shim_leaves_a_path_alone_that_only_ends_like_its_own(launcher: Launcher) -> None:
    folder = launcher.project / "training"
    folder.mkdir()
    (folder / "helper.py").write_text("")
    env = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(folder)}
    assert launcher.run(script="import helper", env=env)[0] == 0


def test_the_collector_leaves_alone_what_importing_torch_made(launcher: Launcher) -> None:
    launcher.script("made = [[] for _ in range(1000)]", "torch.py")
    code, launch = launcher.run(
        script="""
        import gc, sys
        before = len(sys.meta_path)
        import torch
        assert gc.get_freeze_count() > 1000 and gc.isenabled()
        assert len(sys.meta_path) == before - 1, "nothing of ours stands in the way of other imports"
        assert torch.__file__.endswith("torch.py") and torch.__spec__.name == "torch"
        """
    )
    assert code == 0, launch.err


@pytest.mark.slow
def test_classes_of_main_pickle_and_spawned_loaders_work(launcher: Launcher) -> None:
    code, launch = launcher.run(
        ranks=2,
        script="""
        import multiprocessing, os, pickle
        from torch.utils.data import DataLoader, Dataset

        class Numbers(Dataset):
            def __len__(self):
                return 8
            def __getitem__(self, index):
                return index

        def double(x):
            return 2 * x

        if __name__ == "__main__":
            assert isinstance(pickle.loads(pickle.dumps(Numbers())), Numbers)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                assert pool.map(double, [1, 2]) == [2, 4]
            loader = DataLoader(Numbers(), num_workers=2, multiprocessing_context="spawn")
            assert sorted(int(x) for x in loader) == list(range(8))
            open("done-" + os.environ["RANK"], "w")
        """,
    )
    assert code == 0, launch.err
    launch.ready("done-0", "done-1", timeout_s=0.1)


def test_files_named_like_the_standard_library_where_the_user_stands_break_nothing(launcher: Launcher) -> None:
    for name in ("random", "types", "torch", "json", "psutil", "runctl", "logging"):
        launcher.script("raise SystemExit('the wrong module')", f"{name}.py")
    launcher.script("import random, types, json\nassert random.random() < 1\nopen('done', 'w')", "src/train.py")
    code, launch = launcher.run("script=src/train.py", ranks=1)
    assert code == 0, launch.err
    assert (launcher.project / "done").exists()


@pytest.mark.parametrize(
    ("leaving", "code", "said"),
    [
        ("sys.exit()", 0, ""),
        ("sys.exit(0)", 0, ""),
        ("sys.exit(7)", 7, "exited with code 7"),
        ("sys.exit(-1)", 255, "exited with code 255"),
        ("sys.exit('no data')", 1, "no data"),
    ],
)
def test_a_script_leaves_with_its_own_code(launcher: Launcher, leaving: str, code: int, said: str) -> None:
    ended, launch = launcher.run(script=f"import sys\n{leaving}")
    assert ended == code
    assert said in launch.json("outcome.json")["reason"]
    assert "Traceback" not in launch.err


def test_a_syntax_error_is_shown_as_python_shows_it(launcher: Launcher) -> None:
    code, launch = launcher.run(script="x = 1\nif x print(x)\n")
    assert code == 1
    assert launch.err.count("SyntaxError: ") == 1
    assert "train.py" in launch.err and "if x print(x)" in launch.err
    assert "worker.py" not in launch.err


def test_what_a_script_registers_for_its_exit_runs_after_success_and_after_failure(launcher: Launcher) -> None:
    script = "import atexit, sys\natexit.register(lambda: open(sys.argv[1], 'w'))\nassert sys.argv[1] == 'good'"
    assert launcher.run("argv=[good]", script=script)[0] == 0
    assert launcher.run("argv=[bad]", script=script)[0] == 1
    assert (launcher.project / "good").exists() and (launcher.project / "bad").exists()


def test_a_hook_for_uncaught_exceptions_runs_and_prints_no_second_traceback(launcher: Launcher) -> None:
    code, launch = launcher.run(
        script="""
        import sys, traceback
        def hook(kind, error, trace):
            open(kind.__name__, "w")
            traceback.print_exception(error)
        sys.excepthook = hook
        raise KeyError("gone")
        """
    )
    assert code == 1
    assert (launcher.project / "KeyError").exists()
    assert launch.err.count("KeyError: 'gone'") == 1


def test_a_process_that_the_script_forks_does_not_speak_for_the_rank(launcher: Launcher) -> None:
    code, launch = launcher.run(
        script="""
        import os, sys
        if os.fork() == 0:
            sys.exit(3)
        os.wait()
        if os.fork() == 0:
            raise ValueError("the child's own")
        os.wait()
        sys.exit(5)
        """
    )
    assert code == 5
    assert "exited with code 5" in launch.json("outcome.json")["reason"]


def test_a_message_that_cannot_be_encoded_loses_no_verdict(launcher: Launcher) -> None:
    code, launch = launcher.run(script="raise ValueError('file \\udcff is gone')")
    assert code == 1
    assert "ValueError: file \\udcff is gone" in launch.err


def test_variables_of_an_outer_torchrun_do_not_confuse_a_plain_launch(launcher: Launcher) -> None:
    env = {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "8", "TORCHELASTIC_RUN_ID": "outer"}
    code, launch = launcher.run(script="import os\nprint('rank', os.environ['RANK'])", env=env)
    assert code == 0
    assert launch.log("r0") == b"rank 3\n"


def test_a_shim_without_an_attempt_just_runs_the_script(tmp_path: Path) -> None:
    import runctl.training

    (tmp_path / "t.py").write_text("import sys\nprint(sys.argv[1:])\nraise ValueError('x')")
    shim = Path(runctl.training.__file__).with_name("worker.py")
    env = {**os.environ, "RUNCTL_PARENT_PID": str(os.getpid())}
    env.pop("RUNCTL_HOST_DIR", None)
    done = subprocess.run(
        [sys.executable, shim, "script", tmp_path / "t.py", "a"],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == "['a']\n" and "ValueError: x" in done.stderr
