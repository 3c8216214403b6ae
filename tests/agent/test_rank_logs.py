"""Ranks' output through a whole launch."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import time

from real_launches import LAUNCH, Launcher
from waiting import wait_until


def test_no_line_of_two_busy_ranks_is_lost_torn_or_out_of_order(launcher: Launcher) -> None:
    lines = 20_000
    code, launch = launcher.run(
        ranks=2,
        script=f"""
        import os, sys
        rank = os.environ["RANK"]
        for i in range({lines}):
            print(f"rank {{rank}} line {{i:06}} " + "x" * (i % 97))
            if i % 1000 == 0:
                print(f"aside {{rank}} {{i}}", file=sys.stderr)
        """,
    )
    assert code == 0
    for rank in range(2):
        expected = [f"rank {rank} line {i:06} " + "x" * (i % 97) for i in range(lines)]
        prefix = f"[rank{rank}] " if rank else ""
        kept = launch.log(f"r{rank}").decode().splitlines()
        assert [line for line in kept if not line.startswith("aside")] == expected
        shown = [line for line in launch.out.splitlines() if line.startswith(f"{prefix}rank {rank}")]
        assert shown == [prefix + line for line in expected]
        assert launch.err.count(f"{prefix}aside {rank} ") == lines // 1000
    assert len(launch.out.splitlines()) == 2 * lines


def test_a_local_rank_of_ten_and_more_works(launcher: Launcher) -> None:
    code, launch = launcher.run(ranks=12, script="import os\nprint('I am', os.environ['LOCAL_RANK'])")
    assert code == 0, launch.err
    assert launch.log("r11") == b"I am 11\n"
    assert sorted(launch.out.splitlines()) == sorted(["I am 0", *(f"[rank{n}] I am {n}" for n in range(1, 12))])


def test_a_progress_bar_is_live_on_a_terminal(launcher: Launcher) -> None:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    seen = bytearray()

    def sees(piece: bytes) -> bool:
        with contextlib.suppress(OSError):  # nothing there just now
            seen.extend(os.read(ours, 65536))
        return piece in seen

    launch = launcher.start(
        stdout=theirs,
        stderr=theirs,
        script="""
        import os, sys, time
        for percent in (10, 20, 100):
            sys.stderr.write(f"\\r\\x1b[32m{percent:3}%\\x1b[0m|####")
            sys.stderr.flush()
            while not os.path.exists(f"seen-{percent}"):
                time.sleep(0.01)
        """,
    )
    try:
        for percent in (10, 20, 100):
            bar = b"\r\x1b[32m%3d%%\x1b[0m|####" % percent
            wait_until(lambda bar=bar: sees(bar), 20, f"the bar stands at {percent}")
            (launcher.project / f"seen-{percent}").touch()
        wait_until(lambda: sees(b"succeeded"), 20, "the end is told")
        assert launch.end() == 0
    finally:
        os.close(theirs)
        os.close(ours)
    assert launch.log("r0") == b"\r 10%|####\r 20%|####\r100%|####\n"


def test_a_reader_that_leaves_does_not_end_the_training(launcher: Launcher) -> None:
    script = launcher.script(
        """
        import time
        for i in range(200):
            print("line", i)
            time.sleep(0.005)
        open("done", "w")
        """
    )
    env = {**os.environ, "TMPDIR": str(launcher.scratch)}
    done = subprocess.run(
        ["bash", "-c", f"{LAUNCH} script={script.name} run.id=headed | head -1; exit ${{PIPESTATUS[0]}}"],
        cwd=launcher.project, env=env, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"line 0\n")
    assert (launcher.project / "done").exists()
    log = launcher.project / "runs" / "headed" / "logs" / "a1" / "n0" / "r0.log"
    assert log.read_bytes().count(b"\n") == 200


def test_with_json_the_trainings_output_goes_to_stderr(launcher: Launcher) -> None:
    code, launch = launcher.run("output=json", script="print('hello')")
    assert code == 0
    assert "hello" in launch.err.splitlines()
    assert len(launch.out.splitlines()) == 1 and launch.out.startswith('{"schema"')


def test_torchruns_own_words_go_to_its_log_alone(launcher: Launcher) -> None:
    began = time.time()
    code, launch = launcher.run(ranks=2, script="import os, sys\nsys.exit(int(os.environ['RANK']))")
    assert code == 1 and time.time() - began < 20
    assert b"exitcode: 1" in launch.log("torchrun")
    assert "exitcode: 1" not in launch.out + launch.err
