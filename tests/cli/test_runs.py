"""`runctl ps`, `show`, `logs`, `diff`, `rm`, `reindex`: what they tell of run directories as launches leave them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from made import Home

from runctl.cli import logs, ps, steer, table
from runctl.outcome import Attempt, Outcome
from runctl.registry import Entry
from runctl.rundir import RunDir
from runctl.spec import Plan, RunState
from runctl.standing import look


def heard_ago(rundir: RunDir, seconds: float) -> None:
    for name in ("heartbeat.json", "status.json"):
        told = json.loads(rundir.store.read(name) or b"{}")
        rundir.store.write(name, json.dumps({**told, "at": time.time() - seconds}).encode())


def interrupted(home: Home, *, ago_s: float = 1.0) -> RunDir:
    """A run whose spot host was taken away so long ago."""
    rundir = home.run("rented", state=RunState.RUNNING, log="first\n")
    end = time.time() - ago_s
    rundir.write_attempt(Attempt(1, "aws", "i-1", "spot", 1.0, end, RunState.INTERRUPTED, 71, "spot notice"))
    return rundir


def instead_of_sleeping(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *steps: Callable[[], object]) -> None:
    """What happens while a command waits, one step each time that it would sleep; others of this process do sleep."""
    left = iter(steps)
    monkeypatch.setattr(module, "time", SimpleNamespace(**{**vars(time), "sleep": lambda _: next(left)()}))


def begins_again(rundir: RunDir) -> None:
    rundir.write_submission(Plan("rented", 2, "aws", (), {}, 1, 1, ".", rundir.url), None)


def ends(rundir: RunDir) -> None:
    stream = rundir.log_stream(2, 0, "r0")
    stream.append(b"second\n")
    stream.close()
    rundir.write_attempt(Attempt(2, "aws", "i-2", "spot", 2.0, time.time(), RunState.SUCCEEDED, 0))


def says_that_this_was_all(rundir: RunDir) -> None:
    last = rundir.attempts()[-1]
    rundir.write_outcome(Outcome("rented", "rented", last.state, 71, "", rundir.url, [last]))


def test_wait_goes_on_over_an_interruption(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = interrupted(home)
    instead_of_sleeping(monkeypatch, steer, lambda: begins_again(rundir), lambda: ends(rundir))
    result = home.runctl("wait", "rented")
    assert "rented succeeded" in result.stdout and "attempt 1 is interrupted; another may come" in result.stderr


def test_wait_ends_with_an_interruption_after_which_nothing_comes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = interrupted(home)
    instead_of_sleeping(monkeypatch, steer, lambda: says_that_this_was_all(rundir))
    assert "interrupted: spot notice" in home.runctl("wait", "rented", expect=71).stdout
    interrupted(home, ago_s=1000)
    home.runctl("wait", "rented", expect=71)


def test_wait_that_gives_up_within_an_interruption_says_so(home: Home) -> None:
    interrupted(home)
    home.runctl("wait", "rented", "--timeout", "1ms", expect=124)


def test_stop_of_an_interrupted_run_waits_for_the_attempt_that_it_asked(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    rundir = interrupted(home)
    instead_of_sleeping(monkeypatch, steer, lambda: begins_again(rundir), lambda: ends(rundir))
    assert "rented succeeded" in home.runctl("stop", "rented").stdout
    assert rundir.stop_request(2) is not None
    interrupted(home)
    rundir.store.delete("attempts/2.json")
    rundir.store.delete("attempts/2.submit.json")
    says_that_this_was_all(rundir)
    assert "has ended already: interrupted" in home.runctl("stop", "rented").stdout


def test_what_may_get_another_host_is_neither_removed_nor_pruned(home: Home) -> None:
    rundir = interrupted(home)
    assert "rented goes on (interrupted)" in home.runctl("rm", "-f", "rented", expect=2).stderr
    assert "prunes by itself" in home.runctl("checkpoint", "prune", "rented", expect=2).stderr
    says_that_this_was_all(rundir)
    home.runctl("checkpoint", "prune", "rented")
    home.runctl("rm", "-f", "rented")


def test_logs_follow_a_run_from_attempt_to_attempt(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = interrupted(home)
    instead_of_sleeping(monkeypatch, logs, lambda: begins_again(rundir), lambda: ends(rundir))
    assert home.runctl("logs", "-f", "rented").stdout == "first\nsecond\n"


def test_an_attempt_that_will_never_come_is_not_waited_for(home: Home) -> None:
    home.run("run-1", log="x\n")
    assert "--attempt 5: there are 1" in home.runctl("logs", "-f", "run-1", "--attempt", "5", expect=2).stderr


def test_ps_shows_what_goes_on_within_80_columns(home: Home) -> None:
    home.run("train-20261125-121500-abcd", state=RunState.RUNNING, step=400, loss=0.12345678, attempts=2)
    home.run("old", state=RunState.FAILED)
    shown = home.runctl("ps").stdout.splitlines()
    assert all(len(line) <= 80 for line in shown)
    assert len(shown) == 2
    assert shown[0].split() == ["RUN", "STATE", "STEP", "LOSS", "ETA", "USD", "WHERE"]
    row = shown[1]
    for part in ("running #2", "400/1000", "train-20261125-121500-abcd ", "0.1235", "5m", "0.006"):
        assert part in row, row


def test_on_a_narrow_terminal_ps_leaves_columns_out_and_no_id_is_cut(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.run("train-20261125-121500-abcd", state=RunState.RUNNING, step=400, attempts=2)
    monkeypatch.setenv("COLUMNS", "48")
    heading, row = home.runctl("ps").stdout.splitlines()
    assert heading.split() == ["RUN", "STATE", "STEP"] and max(len(heading), len(row)) <= 48
    assert row.split() == ["train-20261125-121500-abcd", "running", "#2", "400/1000"]
    monkeypatch.setenv("COLUMNS", "20")
    assert home.runctl("ps").stdout.splitlines()[1].split() == ["train-20261125-121500-abcd", "running", "#2"]


def test_show_and_diff_keep_on_a_narrow_terminal_what_is_needed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = "train-20261125-121500-abcd", "train-20261125-121500-efgh"
    home.run(first, config="sweep: {max_parallel_jobs: 1, name: x}\n", state=RunState.FAILED)
    home.run(other, config="sweep: {max_parallel_jobs: 2, name: x}\n")
    monkeypatch.setenv("COLUMNS", "40")
    heading, row = home.runctl("diff", first, other, expect=1).stdout.splitlines()
    assert row.split() == ["sweep.max_parallel_jobs", "1", "2"] and max(len(heading), len(row)) <= 40
    heading = home.runctl("show", first).stdout.split("\n\n")[1].splitlines()[0]
    assert heading.split("  ")[-1].strip() == "WHY IT ENDED" and "WHERE" not in heading and len(heading) <= 40


def test_columns_stand_below_each_other_whatever_letters_are_wide(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [["実験 一", "1", "x"], ["plain", "22", "e\u0301"]]
    table.show_table(("NAME", "N", "Z"), rows, right=(1,))
    assert capsys.readouterr().out == "NAME      N  Z\n実験 一   1  x\nplain    22  e\u0301\n"
    monkeypatch.setenv("COLUMNS", "11")
    table.show_table(("NAME", "N"), [rows[0], ["実験実験", "22"]], shrink=(0,))
    assert capsys.readouterr().out == "NAME     N\n実験 一  1\n実験実…  22\n"


def test_ps_all_has_the_ended_ones_and_filters_them(home: Home) -> None:
    home.run("a", state=RunState.SUCCEEDED, tags={"team": "vision"}, began_at=time.time() - 100)
    home.run("b", state=RunState.FAILED, name="other")

    def ids(*words: str) -> list[str]:
        return [one["run_id"] for one in json.loads(home.runctl("ps", *words, "--json").stdout)]

    assert ids("--all") == ["b", "a"]
    assert ids() == []
    assert ids("--state", "failed") == ["b"]
    assert ids("-a", "--name", "oth*") == ["b"]
    assert ids("-a", "--tag", "team=vision") == ["a"] and ids("-a", "--tag", "team=text") == []
    assert ids("-n", "1") == ["b"]


def test_an_unknown_state_is_refused_with_those_there_are(home: Home) -> None:
    assert "running, " in home.runctl("ps", "--state", "sleeping", expect=2).stderr


def test_a_run_that_should_live_and_gives_no_sign_is_lost(home: Home) -> None:
    rundir = home.run("gone", state=RunState.RUNNING)
    heard_ago(rundir, 3600)
    (one,) = json.loads(home.runctl("ps", "--json").stdout)
    assert one["state"] == "lost"


def test_a_run_that_was_lost_and_is_heard_of_again_goes_on(home: Home) -> None:
    rundir = home.run("gone", state=RunState.RUNNING)
    heard_ago(rundir, 3600)
    for _ in range(2):  # it stays in sight
        assert [one["state"] for one in json.loads(home.runctl("ps", "--json").stdout)] == ["lost"]
    rundir.beat(1, "host-1", 1, step=200)
    assert [one["state"] for one in json.loads(home.runctl("ps", "--json").stdout)] == ["running"]


def test_a_run_that_never_got_a_host_is_lost_in_the_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = home.run("bare")
    for name in ("attempts/1.json", "status.json"):
        rundir.store.delete(name)
    assert look(rundir).state == "lost", "its launcher is gone, and nothing was submitted"
    rundir.write_submission(Plan("bare", 1, "aws", (), {}, 1, 1, ".", rundir.url), None)
    assert look(rundir).state == "pending"
    later = time.time() + 3700
    monkeypatch.setattr(time, "time", lambda: later)
    assert look(rundir).state == "lost"
    assert "bare lost" in home.runctl("wait", "bare", expect=71).stdout
    rundir.write_submission(Plan("bare", 1, "aws", (), {}, 1, 1, ".", rundir.url), None)
    assert look(rundir).state == "pending", "its launcher has asked once more"
    later += 3700
    home.runctl("rm", "-f", "bare")


def test_a_run_is_pending_as_long_as_its_launcher_lives(home: Home) -> None:
    rundir = home.run("bare")
    rundir.store.delete("attempts/1.json")
    rundir.lease.take(os.getpid())
    assert look(rundir).state == "pending"


def test_a_run_directory_that_does_not_answer_is_shown_as_it_was_seen_last(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.run("near", state=RunState.RUNNING)
    # An address of the block for documentation, to which nothing is ever routed.
    far = home.registry.at(f"{home.root}/near")
    assert far is not None
    seen = {**far.seen, "run_id": "far", "url": "http://192.0.2.1/runs/far"}
    home.registry.note(Entry("http://192.0.2.1/runs/far", "far", "far", "aws", "running", 1.0, 1.0, seen=seen))
    monkeypatch.setattr(ps, "LOOK_S", 1.0)
    began = time.monotonic()
    result = home.runctl("ps")
    assert time.monotonic() - began < 5
    assert "far" in result.stdout and "near" in result.stdout and "ago" in result.stdout
    assert "far as it was seen last" in result.stderr


def test_run_means_an_id_a_prefix_a_name_latest_or_a_place(home: Home) -> None:
    home.run("alpha-1", name="first", began_at=time.time() - 90)
    home.run("beta-1", name="second")
    for word in ("beta-1", "beta", "second", "latest", f"{home.root}/beta-1", "runs/beta-1/"):
        assert json.loads(home.runctl("show", word, "--json").stdout)["run"]["run_id"] == "beta-1", word


def test_an_ambiguous_word_lists_the_candidates(home: Home) -> None:
    home.run("job-1")
    home.run("job-2")
    said = home.runctl("show", "job", expect=2).stderr
    assert "job-1" in said and "job-2" in said and "by its id" in said


def test_an_unknown_run_is_refused_with_what_may_be_meant(home: Home) -> None:
    home.run("digits-1")
    assert "did you mean digits-1?" in home.runctl("logs", "digts-1", expect=2).stderr
    assert "runctl reindex" in home.runctl("logs", "zzz", expect=2).stderr
    assert "no spec.json" in home.runctl("logs", "./nowhere", expect=2).stderr


def test_a_run_of_another_machine_is_found_where_runs_lie(home: Home) -> None:
    home.run("here")
    home.run("theirs", noted=False)
    assert home.registry.at(f"{home.root}/theirs") is None
    assert "theirs" in home.runctl("show", "theirs").stdout
    assert home.registry.at(f"{home.root}/theirs") is not None


def test_show_tells_of_every_attempt_and_why_it_ended(home: Home) -> None:
    home.run("run-1", state=RunState.FAILED, attempts=2)
    shown = home.runctl("show", "run-1").stdout
    assert "failed" in shown and "step 50, step 100" in shown
    rows = shown[shown.index("#  STATE") :].splitlines()
    assert "interrupted" in rows[1] and "0–100" in rows[1]
    assert "failed" in rows[2] and "40–100" in rows[2]


def test_show_config_is_the_effective_configuration(home: Home) -> None:
    home.run("run-1", config="args:\n  lr: 0.5\n")
    assert home.runctl("show", "run-1", "--config").stdout == "args:\n  lr: 0.5\n"


def test_diff_names_the_keys_that_differ_and_exits_with_1(home: Home) -> None:
    home.run("a", config="args: {lr: 0.1, depth: 3}\n")
    home.run("b", config="args: {lr: 0.2, depth: 3, wide: true}\n")
    home.run("c", config="args: {lr: 0.1, depth: 3}\n")
    shown = home.runctl("diff", "a", "b", expect=1).stdout
    assert "args.lr" in shown and "0.1" in shown and "0.2" in shown and "args.wide" in shown and "depth" not in shown
    assert json.loads(home.runctl("diff", "a", "b", "--json", expect=1).stdout)["args.lr"] == [0.1, 0.2]
    assert "same" in home.runctl("diff", "a", "c").stdout


def test_logs_filters_by_attempt_expression_and_time(home: Home) -> None:
    home.run("run-1", log="step=1 loss=2\nstep=2 loss=1\nwarning\n", attempts=2)
    assert home.runctl("logs", "run-1", "--attempt", "1").stdout == "step=1 loss=2\nstep=2 loss=1\nwarning\n"
    assert home.runctl("logs", "run-1").stdout.count("step=1") == 2
    assert home.runctl("logs", "run-1", "--attempt", "2", "--grep", "^step=.*1$").stdout == "step=2 loss=1\n"
    # All of it was there before the time from which it is wanted.
    time.sleep(0.01)
    assert home.runctl("logs", "run-1", "--since", "1ms").stdout == ""
    assert home.runctl("logs", "run-1", "--attempt", "1", "--since", "1h").stdout.endswith("warning\n")


def test_logs_of_all_ranks_name_the_rank(home: Home) -> None:
    rundir = home.run("run-1", log="zero\n")
    other = rundir.log_stream(1, 0, "r1")
    other.append(b"one\n")
    other.close()
    assert home.runctl("logs", "run-1").stdout == "zero\n"
    assert "1 more rank(s)" in home.runctl("logs", "run-1").stderr
    assert home.runctl("logs", "run-1", "--rank", "1").stdout == "one\n"
    assert sorted(home.runctl("logs", "run-1", "--rank", "all").stdout.splitlines()) == ["[rank0] zero", "[rank1] one"]
    for number, words in ((0, b"no end"), (1, b"none here")):
        stream = rundir.log_stream(1, 0, f"r{number}")
        stream.append(words)
        stream.close()
    shown = home.runctl("logs", "run-1", "--rank", "all").stdout.splitlines()
    assert {"[rank0] no end", "[rank1] none here"} < set(shown)
    assert "r0, r1" in home.runctl("logs", "run-1", "--rank", "7", expect=2).stderr


def test_bad_words_of_logs_are_refused(home: Home) -> None:
    home.run("run-1", log="x\n")
    assert "--grep (" in home.runctl("logs", "run-1", "--grep", "(", expect=2).stderr
    assert "--rank two" in home.runctl("logs", "run-1", "--rank", "two", expect=2).stderr
    assert "--attempt 9: there are 1" in home.runctl("logs", "run-1", "--attempt", "9", expect=2).stderr
    assert "--since=soon" in home.runctl("logs", "run-1", "--since", "soon", expect=2).stderr


def test_rm_removes_what_has_ended_and_nothing_that_goes_on(home: Home) -> None:
    ended = home.run("ended")
    home.run("going", state=RunState.RUNNING)
    assert "runctl stop going" in home.runctl("rm", "-f", "going", expect=2).stderr
    home.runctl("rm", "-f", "ended")
    assert not Path(ended.url).exists() and home.registry.at(ended.url) is None
    assert Path(home.root, "going", "spec.json").exists()


def test_rm_without_a_yes_removes_nothing(home: Home) -> None:
    ended = home.run("ended")
    home.runctl("rm", "ended", expect=1)
    assert Path(ended.url, "spec.json").exists()


def test_rm_tells_programs_what_it_removed_and_asks_them_nothing(home: Home) -> None:
    one, other = home.run("one"), home.run("other")
    assert "add -y" in home.runctl("rm", "one", "--json", expect=2).stderr and Path(one.url, "spec.json").exists()
    sizes = one.store.sizes("")
    told = json.loads(home.runctl("rm", "one", "--json", "--yes").stdout)
    assert told == {
        "run_id": "one", "url": one.url, "files": len(sizes), "size_bytes": sum(sizes.values()), "places": [one.url],
    }  # fmt: skip
    assert json.loads(home.runctl("rm", "other", "--json", "--keep-files").stdout)["files"] == 0
    assert not Path(one.url).exists() and Path(other.url).exists() and home.registry.entries() == []


def test_reindex_makes_the_index_anew_from_run_directories(home: Home) -> None:
    home.run("a", noted=False)
    home.run("b", noted=False, state=RunState.FAILED)
    (Path(home.root) / "no-run").mkdir()
    home.registry.note(Entry(f"{home.root}/gone", "gone", "gone", "local", "failed", 1.0, 1.0))
    assert json.loads(home.runctl("reindex", home.root, "--json").stdout) == {home.root: 2}
    assert {one.id: one.state for one in home.registry.entries()} == {"a": "succeeded", "b": "failed"}


@pytest.mark.parametrize("name", ["status.json", "attempts/1.submit.json"])
def test_reindex_keeps_what_it_could_not_read(home: Home, name: str) -> None:
    rundir = home.run("damaged")
    home.run("whole", noted=False)
    home.registry.note(Entry.begun(rundir.url, rundir.read_spec(), "local", "/home/me/project"))
    rundir.store.write(name, b'{"plan": {"of": "a newer runctl"}, "handle": null' + b"}" * (name != "status.json"))
    result = home.runctl("reindex", home.root, "--json")
    assert json.loads(result.stdout) == {home.root: 1} and name in result.stderr
    kept = home.registry.at(rundir.url)
    assert kept is not None and kept.project == "/home/me/project"


def test_reindex_forgets_no_run_of_a_folder_that_is_not_there(home: Home, tmp_path: Path) -> None:
    rundir = home.run("kept")
    home.registry.note(Entry.begun(rundir.url, rundir.read_spec(), "local", "/home/me/project"))
    home.run("other", root=str(tmp_path / "others"))
    Path(home.root).rename(tmp_path / "away")
    result = home.runctl("reindex", "--json", expect=1)
    assert json.loads(result.stdout) == {str(tmp_path / "others"): 1}
    assert f"there is no folder {home.root}; what is known of its 1 run is kept" in result.stderr
    assert "is kept" in home.runctl("reindex", home.root, expect=2).stderr
    (tmp_path / "away").rename(home.root)
    assert json.loads(home.runctl("reindex", "--json").stdout)[home.root] == 1
    kept = home.registry.at(rundir.url)
    assert kept is not None and kept.project == "/home/me/project"


def test_reindex_of_a_folder_that_never_was_says_so(home: Home) -> None:
    assert f"there is no folder {home.folder / 'nosuch'}\n" in home.runctl("reindex", "nosuch", expect=2).stderr
    assert home.runctl("reindex").stdout.split()[:2] == ["0", "runs"], "the project has had no run yet"


def test_what_a_shell_completes_a_run_by_are_ids_and_latest(home: Home) -> None:
    from runctl.cli.reference import complete

    home.run("alpha-1")
    home.run("alpha-2")
    assert [word for word, _ in complete("al")] == ["alpha-2", "alpha-1"]
    assert [word for word, _ in complete("la")] == ["latest"]
