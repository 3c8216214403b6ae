"""A path, an argument, a tag and a key with quotes, `$()`, newlines and unicode arrive as they are, and do nothing."""

from __future__ import annotations

import json

import pytest
from whole import BUCKET, Account

from runctl.arguments import quote_for_hydra

HOSTILE = 'it\'s "so" $(touch pwned) `touch pwned` ; größe 模型\n& more'
#: Without the newline: moto, which is the drill's S3, finds no object by a name with one.
KEY = HOSTILE.replace("\n", " ")
SCRIPT = f"sub folder/{HOSTILE}.py"
RECORD = """
import json, os, sys
from pathlib import Path
Path("out").mkdir()
Path("out", os.environ["NAME"]).write_text("made here")
print(json.dumps([sys.argv, os.environ["NOTE"], os.getcwd()]))
"""


@pytest.mark.slow
def test_all_of_them_arrive_byte_for_byte_and_nothing_is_executed(account: Account) -> None:
    script = account.project / SCRIPT
    script.parent.mkdir()
    script.write_text(RECORD)
    key = f"s3://{BUCKET}/{KEY}"
    root = f"{key}/runs"
    outputs = {"from": "out", "to": f"{key}/out"}
    launch = account.start(
        "trainer=single", "run.id=hostile", f"run.root={quote_for_hydra(root)}",
        f"tags.note={quote_for_hydra(HOSTILE)}",
        f"env.NOTE={quote_for_hydra(HOSTILE)}", f"env.NAME={quote_for_hydra(KEY)}",
        f"data.outputs=[{{from: out, to: {quote_for_hydra(outputs['to'])}}}]",
        "--", SCRIPT, HOSTILE, f"--name={HOSTILE}", "",
    )  # fmt: skip
    code = launch.wait(120)
    out, err = account.said(launch)
    assert code == 0, err
    argv, note, workdir = json.loads(out.splitlines()[0])
    assert argv == [f"{workdir}/{SCRIPT}", HOSTILE, f"--name={HOSTILE}", ""]
    assert note == HOSTILE
    assert account.cloud.read(f"{key}/out/{KEY}") == b"made here"
    assert json.loads(account.cloud.read(f"{root}/hostile/outcome.json") or b"")["state"] == "succeeded"
    (instance,) = account.instances("hostile")
    assert instance["tags"]["note"] == HOSTILE
    for folder in (account.folder, account.cloud.folder):
        assert not [path for path in folder.rglob("*") if path.name.startswith("pwned")]
    account.check_that_nothing_runs(20)
