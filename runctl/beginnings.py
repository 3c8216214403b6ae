"""The files with which a project begins to use runctl: its configuration and its plugins, from what its scripts say.

Guesses are made from text alone: nothing of the project is imported or run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

#: Names under which trainings go, the likeliest first.
_NAMES = ("train", "training", "finetune", "fine_tune", "pretrain", "fit", "main", "run")
_FOLDERS = (".", "src", "scripts", "bin", "tools", "examples")
_AT_MOST_BYTES = 1 << 20
_NOT_ONES = re.compile(r"(test_.*|.*_test|conftest|setup|runctl_plugins|__init__)\.py")
_DISTRIBUTED = re.compile(
    r"torch\.distributed|DistributedDataParallel|FullyShardedDataParallel|init_process_group|accelerate|"
    r"lightning|LOCAL_RANK|transformers"
)
_ATTACHES = re.compile(r"runctl\s*\.\s*attach|from runctl import")
_SAVES = re.compile(r"torch\.save\(|save_checkpoint|save_pretrained")
_RESUME_FLAG = re.compile(r"add_argument\(\s*['\"](--(?:resume(?:[-_]from(?:[-_]checkpoint)?)?|checkpoint|ckpt))['\"]")
_HYDRA = re.compile(r"@hydra\.main")


@dataclass(frozen=True)
class Guess:
    """What a project's training seems to be.

    Attributes:
        script: relative to the project; None if none was found.
        others: that might be it as well.
        trainer: `ddp` or `single`.
        why: of the trainer.
        attaches: whether it takes checkpoints through runctl.
        saves: whether it writes some by itself.
        resume_flag: its option for the path to resume from, or None.
        hydra: whether it takes its arguments by Hydra.
    """

    script: str | None
    others: tuple[str, ...] = ()
    trainer: str = "single"
    why: str = ""
    attaches: bool = False
    saves: bool = False
    resume_flag: str | None = None
    hydra: bool = False


def guess(project: Path) -> Guess:
    """Look at the scripts of a project.

    Args:
        project: its folder.
    """
    found: list[tuple[tuple[int, int, str], str, str]] = []
    for folder in _FOLDERS:
        for path in sorted((project / folder).glob("*.py")):
            if _NOT_ONES.fullmatch(path.name) or path.stat().st_size > _AT_MOST_BYTES:
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            rank = _rank(path.stem.lower(), text)
            if rank is not None:
                name = path.relative_to(project).as_posix()
                found.append(((rank, _FOLDERS.index(folder), name), name, text))
    if not found:
        return Guess(None)
    (_, script, text), *others = sorted(found)
    return _about(script, text, tuple(name for _, name, _ in others[:4]))


def of_script(project: Path, script: str) -> Guess:
    """What one script seems to be.

    Args:
        project: the folder.
        script: relative to it.
    """
    return _about(script, (project / script).read_text(encoding="utf-8", errors="replace"))


def _about(script: str, text: str, others: tuple[str, ...] = ()) -> Guess:
    distributed = _DISTRIBUTED.search(text)
    flag = _RESUME_FLAG.search(text)
    return Guess(
        script,
        others,
        "ddp" if distributed else "single",
        f"it says {distributed[0]}" if distributed else "nothing in it speaks of several ranks",
        attaches=bool(_ATTACHES.search(text)),
        saves=bool(_SAVES.search(text)),
        resume_flag=flag[1] if flag else None,
        hydra=bool(_HYDRA.search(text)),
    )


def _rank(stem: str, text: str) -> int | None:
    """How likely a script is the training, 0 the likeliest; None for one that hardly is."""
    trains = "torch" in text or "lightning" in text or "transformers" in text
    named = next((number for number, name in enumerate(_NAMES) if name in stem.split("_") or stem == name), None)
    if named is None and not (trains and "__main__" in text):
        return None
    return (named if named is not None else len(_NAMES)) + (0 if trains else 2 * len(_NAMES))


def configuration(about: Guess) -> str:
    """The text of conf/runctl.yaml."""
    assert about.script is not None
    head = f"""# What `runctl-launch` does in this project. Every key can be given on the command line too, which wins:
#   runctl-launch args.learning_rate=3e-4
# `runctl-launch dry_run=true` shows what would be launched, `runctl-launch --help` every key.

defaults:
  # {about.why or "one process"}: `single` starts plain python, `ddp` torchrun, with a rank for each GPU.
  - override /trainer: {about.trainer}
  # Without this line, this machine; aws and runpod rent a host. On the command line: +platform=aws
  # - override /platform: aws

script: {about.script}

# The script's arguments, as it takes them: `learning_rate: 1.0e-3` becomes --learning_rate 0.001.
# args:
#   learning_rate: 1.0e-3
#   batch_size: 32
"""
    if about.hydra:
        head += "# The script takes them by Hydra: learning_rate=0.001, without dashes.\nargs_style: hydra\n"
    return head + _CHECKPOINTS[_way(about)].format(flag=about.resume_flag or "--resume") + _TAIL


def _way(about: Guess) -> str:
    return "attach" if about.attaches else "watch" if about.saves else "none"


_CHECKPOINTS = {
    "attach": """
# The script takes checkpoints through runctl.attach: they are kept, and the same launch goes on from the newest.
checkpoint:
  every: 10m       # 500steps, 1epoch or auto as well
  keep_last: 3
""",
    "watch": """
# The script writes checkpoints by itself. To have them kept, carried away from rented hosts and resumed from, say where
# it writes them and how it is told to resume; or take them in three lines of its own with runctl.attach.
# checkpoint:
#   watch: checkpoints/*.pt
#   resume_flag: {flag}
""",
    "none": """
# Checkpoints, in three lines of the script (`runctl.attach`):
#   checkpointer = runctl.attach(model=model, optimizer=optimizer)
#   for step in checkpointer.steps(1000):
#       ...
# checkpoint:
#   every: 10m
""",
}
_TAIL = """
# What a rented host must have, and what it may cost. The host keeps these limits, also with the laptop closed.
# resources:
#   gpus: 1
#   gpu: L4
# limits:
#   max_time: 24h
#   max_usd: 10
#   max_usd_per_day: 30

# Brought to a rented host before the training, and from it afterwards.
# data:
#   inputs: [{from: s3://bucket/data, to: data}]
#   outputs: [{from: results, to: s3://bucket/results}]
"""

PLUGINS = '''"""What happens around this project's launches: functions of these names are called, as pytest does it.

`runctl-launch plugins.list=true` shows what is active, `-p no:project` leaves this file out. Each function takes as
many of a hook's arguments as it wants. docs/plugins.md has them all.
"""

# import runctl
#
#
# def runctl_before_submit(spec, plan):
#     """The last look before anything is started."""
#     if plan.estimate_usd is not None and plan.estimate_usd > 20:
#         raise runctl.Vetoed(f"at most {plan.estimate_usd} USD is too much for one attempt")
#
#
# def runctl_run_ended(spec, outcome, rundir):
#     """After the last attempt, in the launcher."""
#     print(f"{spec.run.name}: {outcome.state.value} at step {outcome.step}, {outcome.cost_usd} USD")
'''
