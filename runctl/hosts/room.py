"""Makes room for an attempt on a host that had others before: what is heavy of those that have ended goes.

    python3 room.py DIR    DIR is the new attempt's folder, <root>/<run>/a<n>, as its keeper has it

<root>/<run>/a<n>/      project, runctl, data, what was downloaded: all but the records that tell of it later
<root>/.runs/<run>/     a run directory that lay here alone, and has been brought to the launcher since

The root's other folders are shared (`.parcels`, environments, `tmp` with checkpoints that no storage has taken yet).
Started by the keeper as a program of its own: the standard library, Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path

#: What is small, and tells what an attempt was.
RECORDS = ("host.json", "ended.json", "started", "pid", "bring-up.log", "collected", "start.lock", "run.lock")


def make(home: Path) -> list[Path]:
    """Remove what ended attempts have left below `home`'s root; what was removed.

    What lies nowhere else stays, and so does all that belongs to a run that has not ended here.
    """
    root, removed = home.parent.parent, []
    for run in sorted(one for one in root.iterdir() if one.is_dir() and not one.name.startswith(".")):
        attempts = [one for one in run.glob("a[0-9]*") if one.is_dir()]
        done = [one for one in attempts if one != home and _is_done(one)]
        heavy = [part for one in done for part in one.iterdir() if part.name not in RECORDS]
        if done and done == attempts:
            heavy += [one for one in [root / ".runs" / run.name] if one.exists()]
        for part in heavy:
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(str(part), ignore_errors=True)
            else:
                part.unlink()
            removed.append(part)
    return removed


def _is_done(home: Path) -> bool:
    """Whether an attempt's keeper has ended, and nothing lies here alone."""
    if not (home / "ended.json").exists():
        return False
    waits_s = 0.0
    with contextlib.suppress(FileNotFoundError):  # one that was given up before it came
        waits_s = float(json.loads((home / "host.json").read_text()).get("collect_s") or 0.0)
    return waits_s == 0.0 or (home / "collected").exists()


if __name__ == "__main__":
    gone = make(Path(sys.argv[1]))
    if gone:
        print(f"removed what earlier attempts left: {', '.join(map(str, gone))}", flush=True)  # noqa: T201 (its log)
