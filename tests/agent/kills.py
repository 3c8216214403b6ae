"""One training that is killed again and again, launched again each time, and looked at in between."""

from __future__ import annotations

import ast
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import fault_points
from fault_points import AGENT, LAUNCHER, RANKS, UPLOADER, WRITER, Fault
from light import MOMENTUM
from real_launches import Launch, Launcher
from waiting import wait_until

import runctl
from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import KEEP_AT_LEAST, Catalog
from runctl.checkpoint.remote import FOLDER, RemoteCatalog
from runctl.rundir import RunDir
from runctl.spec import Retention
from runctl.storage import TEMPORARY

STEPS = 80
STEP_S = 0.03
WORDS = ("checkpoint.every=4steps", f"args.steps={STEPS}")
#: Ten megabytes, so that a file is written in several pieces and uploaded in several parts.
SCRIPT = f"""
    import hashlib, os, random, sys, time
    import torch, torch.distributed as dist
    from torch import nn
    import runctl
{MOMENTUM}
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 1))
            self.register_buffer("table", torch.zeros(2_500_000))

        def forward(self, x):
            return self.layers(x)

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = Model()
    optimizer = Momentum(model)
    torch.manual_seed(rank), random.seed(rank)
    ck = runctl.attach(model=model, optimizer=optimizer)
    for step in ck.steps(int(sys.argv[1].split("=")[1])):
        x = torch.randn(16, 8) + random.random()
        loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
        loss.backward()
        optimizer.step()
        model.table[step * 31_000 : (step + 1) * 31_000] += loss.detach()
        ck.log(loss=loss)
        time.sleep(float(os.environ.get("STEP_S", "0")))
        while step == 5 and ck.saver is not None and ck.saver.busy:
            # On a busy machine all steps would be done before the writer has come up, which runs when nobody else does.
            ck.saver.poll(), time.sleep(0.01)
    if rank == 0:
        tensors = model.state_dict().values()
        digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()
        with open("digest.new", "w") as file:
            file.write(digest)
        os.replace("digest.new", "digest")
    dist.destroy_process_group()
"""
KEPT = Retention().keep_last
GONE_WITHIN_S = 20
ENDED_WITHIN_S = 120


@dataclass(frozen=True)
class Point:
    """A function in which a process may be while it, or another one, is killed.

    Attributes:
        phase: what is being done there.
        function: `module:Class.method`.
        role: whose execution is meant.
        calls: how many calls of it there are at least before the training is over.
        resuming: it is reached only where there is a checkpoint to begin from.
        elsewhere: it is reached only on another host than the one before.
    """

    phase: str
    function: str
    role: str
    calls: int = 1
    resuming: bool = False
    elsewhere: bool = False

    def statements(self) -> int:
        """How many statements there are in it."""
        module, function = self.function.split(":")
        source = Path(runctl.__file__).parents[1] / (module.replace(".", "/") + ".py")
        return len(fault_points.statements(ast.parse(source.read_bytes()), function))


LOCAL = (
    Point("records", "runctl.storage.local:LocalStore.write", LAUNCHER, calls=2),
    Point("records", "runctl.storage.local:LocalStore.write", AGENT, calls=3),
    Point("find", "runctl.checkpoint.catalog:Catalog.sweep", AGENT),
    Point("find", "runctl.checkpoint.catalog:Catalog.newest", AGENT, resuming=True),
    Point("find", "runctl.checkpoint.manifest:verify", AGENT, resuming=True),
    Point("load", "runctl.training.checkpointer:Checkpointer._load", RANKS[0], resuming=True),
    Point("load", "runctl.training.checkpointer:Checkpointer._load", RANKS[1], resuming=True),
    Point("load", "runctl.training.checkpointer:Checkpointer._restore_rank", RANKS[1], resuming=True),
    Point("meet", "runctl.training.meeting:Meeting.leave_rank_state", RANKS[0], calls=3),
    Point("meet", "runctl.training.meeting:Meeting.leave_rank_state", RANKS[1], calls=3),
    Point("snapshot", "runctl.training.snapshot:Snapshot.take", RANKS[0], calls=2),
    Point("snapshot", "runctl.training.saver:Saver.save", RANKS[0], calls=2),
    Point("write", "runctl.training.writer:write", WRITER, calls=2),
    Point("write", "runctl.training.writer:_HashingFile.write", WRITER, calls=60),
    Point("write", "runctl.checkpoint.manifest:hash_file", WRITER, calls=4),
    Point("commit", "runctl.checkpoint.manifest:publish", WRITER, calls=2),
    Point("commit", "runctl.agreement:Agreement.announce_commit", WRITER, calls=2),
    Point("prune", "runctl.checkpoint.catalog:Catalog.prune", WRITER, calls=3),
    Point("end", "runctl.training.checkpointer:Checkpointer._finish", RANKS[0]),
    Point("end", "runctl.agent.checkpoints:Checkpoints.writer_at_work", AGENT),
)
REMOTE = (
    *(point for point in LOCAL if point.phase in ("write", "commit", "end")),
    Point("upload begins", "runctl.checkpoint.upload:Upload.begin", UPLOADER),
    Point("upload begins", "runctl.checkpoint.remote:RemoteCatalog.sweep", UPLOADER),
    Point("upload", "runctl.checkpoint.upload:Upload.carry", UPLOADER),
    Point("upload", "runctl.checkpoint.upload:Upload._hold", UPLOADER),
    Point("upload", "runctl.checkpoint.remote:RemoteCatalog.publish", UPLOADER),
    Point("upload", "runctl.checkpoint.remote:RemoteCatalog._replace", UPLOADER),
    Point("upload", "runctl.checkpoint.remote:RemoteCatalog._carry", UPLOADER),
    Point("upload", "runctl.storage.remote:FsspecStore.put_file", UPLOADER, calls=2),
    Point("publish", "runctl.storage.remote:FsspecStore.write", UPLOADER, calls=2),
    Point("remote prune", "runctl.checkpoint.remote:RemoteCatalog.prune", UPLOADER),
    Point("remote prune", "runctl.checkpoint.remote:RemoteCatalog.remove", UPLOADER),
    Point("remote find", "runctl.checkpoint.restore:Restore.newest", AGENT, resuming=True),
    Point("fetch", "runctl.checkpoint.restore:Restore._fetched", AGENT, resuming=True, elsewhere=True),
    Point("fetch", "runctl.checkpoint.remote:RemoteCatalog.fetch", AGENT, resuming=True, elsewhere=True),
    Point("fetch", "runctl.storage.remote:FsspecStore.get_file", AGENT, resuming=True, elsewhere=True),
    Point("last upload", "runctl.agent.checkpoints:Checkpoints.finish_upload", AGENT),
    Point("last upload", "runctl.agent.checkpoints:Checkpoints.close", AGENT),
)


@dataclass(frozen=True)
class Kill:
    """One kill: a moment after the start of a launch, or a place in its code.

    Attributes:
        victim: a role.
        moment: when, as a fraction of the time that an undisturbed launch takes; None for a place.
        point: the place.
        statement: see `Fault`.
        elsewhere: the launch is on another host than the one before.
    """

    victim: str
    moment: float | None = None
    point: Point | None = None
    statement: int = 1
    elsewhere: bool = False

    @property
    def resuming(self) -> bool:
        """Whether it can happen only where there is a checkpoint to begin from."""
        return self.point is not None and self.point.resuming

    def __str__(self) -> str:
        where = " on another host" if self.elsewhere else ""
        if self.point is None:
            return f"{self.victim} after {self.moment:.2f} of the time{where}"
        place = f"{self.point.function} of {self.point.role}, statement {self.statement}"
        return f"{self.victim} at {self.point.phase} ({place}){where}"


#: What leaves a run with a checkpoint for the next kill, where that one needs it: a launcher that goes right then.
BEGIN = Kill(LAUNCHER, point=Point("begin", "runctl.checkpoint.catalog:Catalog.prune", WRITER))
BEGIN_REMOTE = Kill(LAUNCHER, point=Point("begin", "runctl.checkpoint.remote:RemoteCatalog.prune", UPLOADER))


@dataclass(frozen=True)
class Expected:
    """What a run that nobody disturbs ends with: the digest of its weights, the loss of every step, its seconds."""

    digest: str
    losses: dict[int, float]
    took_s: float


def undisturbed(launcher: Launcher) -> Expected:
    """Run it to its end without a kill."""
    began = time.monotonic()
    launch = launcher.start(*WORDS, script=SCRIPT, ranks=2, run_id="undisturbed", env={"STEP_S": str(STEP_S)})
    assert launch.end(ENDED_WITHIN_S) == 0, launch.err
    took_s = time.monotonic() - began
    losses = {entry["step"]: entry["loss"] for entry in RunDir(str(launch.run_dir)).metrics()}
    assert sorted(losses) == list(range(1, STEPS + 1))
    return Expected((launcher.project / "digest").read_text(), losses, took_s)


def endure(
    launcher: Launcher, expected: Expected, bucket: str | None, kills: Iterable[Kill], *, count: int, tries: int
) -> list[Kill]:
    """Kill a run again and again; when it has come to its end, which is looked at, another is begun.

    Args:
        bucket: where the run directories lie; None for this machine.
        kills: in turn.
        count: how many are to happen.
        tries: launches for one kill: whether a place is reached is a matter of what there is to be done.

    Returns:
        The kills that did not happen.
    """
    run = KilledRun(launcher, expected, bucket)
    done = 0
    missed = []
    for kill in kills:
        for _ in range(tries):
            if kill.resuming and not run.has_checkpoint(elsewhere=kill.elsewhere):
                assert run.survives(BEGIN_REMOTE if bucket else BEGIN)
            happened = run.survives(kill)
            print(f"{'killed' if happened else 'not reached'}: {kill}; newest checkpoint {run.newest}", flush=True)
            if run.ended:
                run.comes_to_its_end()
                run = KilledRun(launcher, expected, bucket)
            if happened:
                break
        done += happened
        if not happened:
            missed.append(kill)
        if done == count:
            break
    run.comes_to_its_end()
    print(f"{done} kills happened, {len(missed)} were not reached")
    return missed


class KilledRun:
    """A run that is killed and launched again under its id until it has come to its end.

    Args:
        launcher: starts it.
        expected: what it has to end with.
        bucket: where its run directory lies; None for this machine.
    """

    def __init__(self, launcher: Launcher, expected: Expected, bucket: str | None = None) -> None:
        self._launcher = launcher
        self._expected = expected
        # Time for uploads, which run only when nobody else wants to.
        self._step_s = STEP_S if bucket is None else 3 * STEP_S
        self._run_id = f"k-{uuid.uuid4().hex[:8]}"
        self._words = [*WORDS, f"run.root={bucket}"] if bucket else list(WORDS)
        self._rundir = RunDir(f"{bucket or launcher.project / 'runs'}/{self._run_id}")
        self._remote = RemoteCatalog(self._rundir.store) if bucket else None
        self._most = self._known = 0
        self.ended = False
        (launcher.project / "digest").unlink(missing_ok=True)
        self.attempts = 0

    @property
    def newest(self) -> int | None:
        """Step of the newest checkpoint, on this machine or in the bucket."""
        return max([*self._local().steps(), *(self._remote.steps() if self._remote else [])], default=None)

    def has_checkpoint(self, *, elsewhere: bool) -> bool:
        """Whether there is a checkpoint to begin from, also on another host."""
        return bool(self._remote.steps() if self._remote is not None and elsewhere else self.newest is not None)

    def survives(self, kill: Kill) -> bool:
        """Launch it, kill, and look at what is left.

        Returns:
            Whether it came to the kill; if not, the run has come to its end.
        """
        if kill.elsewhere and self._remote is not None:
            self._other_host()
        begin = self.newest
        launch, tag, marker = self._start(kill)
        fired = self._wait(kill, launch, tag, marker)
        code = launch.end(ENDED_WITHIN_S)
        wait_until(lambda: not fault_points.processes(tag), GONE_WITHIN_S, f"nothing is left: {kill}\n{launch.err}")
        self._look(begin, f"{kill}\n{launch.err}")
        self.ended = code == 0
        assert fired or self.ended, f"not killed, and ended with {code}: {kill}\n{launch.err}"
        return fired

    def comes_to_its_end(self) -> None:
        """Launch it a last time, unless that was the last, and compare it with a run that nobody disturbed."""
        if not self.ended:
            begin = self.newest
            launch, tag, _ = self._start(None)
            assert launch.end(ENDED_WITHIN_S) == 0, launch.err
            wait_until(lambda: not fault_points.processes(tag), GONE_WITHIN_S, "nothing is left")
            self._look(begin, launch.err)
        assert self.newest == STEPS
        assert (self._launcher.project / "digest").read_text() == self._expected.digest
        entries = self._rundir.metrics()
        steps = [entry["step"] for entry in entries]
        assert sorted(set(steps)) == sorted(steps), "no step is counted twice"
        if self._remote is None:
            assert steps == list(range(1, STEPS + 1)), "and none is missing"
        assert all(entry["loss"] == self._expected.losses[entry["step"]] for entry in entries)
        self._see_that_nothing_piled_up()

    def _start(self, kill: Kill | None) -> tuple[Launch, str, Path]:
        self.attempts += 1
        marker = self._launcher.scratch / f"killed-{self._run_id}-{self.attempts}"
        fault = Fault(str(marker))
        if kill is not None and kill.point is not None:
            fault = Fault(str(marker), kill.victim, kill.point.function, kill.point.role, kill.statement)
        elif kill is not None:
            fault = Fault(str(marker), kill.victim)
        tag = fault.to_environment()
        env = {
            "PYTHONPATH": str(Path(fault_points.__file__).parent), fault_points.ENV: tag, "STEP_S": str(self._step_s)
        }  # fmt: skip
        return self._launcher.start(*self._words, script=SCRIPT, ranks=2, run_id=self._run_id, env=env), tag, marker

    def _wait(self, kill: Kill, launch: Launch, tag: str, marker: Path) -> bool:
        """Wait for the kill, or do it; False if the launch comes to its end before."""
        if kill.moment is None:
            launch.end(ENDED_WITHIN_S)
            return marker.exists()
        fault = Fault(str(marker), kill.victim)
        deadline = time.monotonic() + kill.moment * self._expected.took_s
        while launch.process.poll() is None:
            if time.monotonic() >= deadline and fault_points.kill(fault, tag):
                return True
            time.sleep(0.02)
        return False

    def _look(self, begin: int | None, told: str) -> None:
        """What a reader finds is whole, no less than before, and was what the last attempt began from."""
        assert "going back to the one before" not in told, told
        here = self._local()
        assert not here.has_bad()
        verified = durable = {step for step in here.steps() if here.verified(step)}
        if self._remote is not None:
            assert not self._remote.has_bad()
            durable = set(self._remote.steps())
            with tempfile.TemporaryDirectory(dir=self._launcher.scratch) as scratch:
                for step in durable:
                    aside = Path(scratch) / str(step)
                    aside.mkdir()
                    self._remote.fetch(step, aside, threading.Event())
            verified |= durable
        assert max(verified, default=-1) >= (-1 if begin is None else begin), told
        assert len(durable) >= min(self._most, KEEP_AT_LEAST), told
        self._most = max(self._most, len(durable))
        attempts = self._rundir.attempts()
        if len(attempts) > self._known:
            self._known = len(attempts)
            # None was killed before it knew.
            assert attempts[-1].resumed_from_step in (begin, None), told

    def _see_that_nothing_piled_up(self) -> None:
        assert len(self._local().steps()) <= KEPT
        project, scratch = self._launcher.project, self._launcher.scratch
        assert [path for path in project.rglob("*") if path.name.startswith(TEMPORARY)] == []
        assert [path for base in scratch.glob("runctl-*") for path in base.iterdir()] == []
        if self._remote is not None:
            assert self._rundir.store.abort_uploads(FOLDER) == 0, "no part of a file waits for the rest"
            files = self._rundir.store.sizes(FOLDER)
            folders = {name.split("/")[0] for name in files if "/" in name}
            assert folders == {manifests.folder_name(step) for step in self._remote.steps()}
            assert len(folders) <= KEPT + 1

    def _other_host(self) -> None:
        for base in self._launcher.scratch.glob("runctl-*"):
            shutil.rmtree(base)

    def _local(self) -> Catalog:
        """The checkpoints on this machine."""
        if self._remote is None:
            return Catalog(Path(self._rundir.url) / FOLDER)
        found = list(self._launcher.scratch.glob(f"runctl-*/.checkpoints/{self._run_id}-*"))
        return Catalog(found[0] if found else self._launcher.scratch / "none")
