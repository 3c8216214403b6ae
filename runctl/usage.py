"""What `--help` prints above the composed configuration.

Hydra's own help looks every group up through its whole search path, which takes it longer than everything else
together; here the folders are listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runctl import conf
from runctl.config.files import ConfigFiles

_USAGE = """\
runctl-launch: take a PyTorch training script from this machine to a spot GPU and back.

  runctl-launch script=train.py args.lr=0.1            plain python on this machine
  runctl-launch trainer=ddp script=train.py            torchrun, one process per GPU
  runctl-launch trainer=ddp -- train.py --lr 0.1       the same, typed as torchrun users know it
  runctl-launch +platform=aws script=train.py dry_run=true
  runctl-launch -m script=train.py args.lr=0.1,0.01    one run for each value

KEY=VALUE sets any key below. args, env, secrets, tags and multipliers take new keys as they come
(args.anything=1); what stands behind -- reaches the script verbatim.

  -m, --multirun    one run for each combination of the values
  -p no:NAME        leave a plugin out
  --cfg job         print the composed configuration alone
  --hydra-help      Hydra's own flags
  --version         print the version

Groups (trainer=ddp chooses one):
"""


def text(files: ConfigFiles, platforms: Sequence[str]) -> str:
    """The usage, with the options of every group.

    Args:
        files: the user's and the project's files, whose folders may add groups and options.
        platforms: the kinds that plugins brought along.
    """
    options: dict[str, set[str]] = {"trainer": set(), "platform": set(platforms)}
    for folder in (*map(Path, conf.__path__), *files.group_dirs()):
        for file in folder.glob("*/*.yaml"):
            options.setdefault(file.parent.name, set()).add(file.stem)
    groups = "".join(f"  {group:<10}{'  '.join(sorted(names))}\n" for group, names in options.items())
    return f"{_USAGE}{groups}\nKeys, with the values they have after what you typed:\n\n"
