"""`runctl aws`: an account made ready for launches, looked at, and the rights it takes."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Optional

import typer

from runctl.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from runctl.platforms.aws.account import Account, Identity, Step
    from runctl.platforms.aws.doctor import Finding

app = typer.Typer(no_args_is_help=True, help="An AWS account: made ready, looked at, and the rights that it takes.")

# Typer reads annotations at run time, and so wants Optional.
_REGION = typer.Option(None, "--region", help="Instead of the one of your AWS settings.", metavar="REGION")
_BUCKET = typer.Option(None, "--bucket", help="Instead of runctl-ACCOUNT-REGION.", metavar="NAME")
_JSON = typer.Option(False, "--json", help="For programs.")
_MARKS = {"was there": "✓", "made": "✓", "to be made": "·", "ok": "✓", "unknown": "?", "absent": "·"}


class Whose(str, Enum):
    """Whose rights."""

    launcher = "launcher"
    host = "host"
    setup = "setup"
    cleanup = "cleanup"


@app.command()
def setup(
    region: Optional[str] = _REGION,
    bucket: Optional[str] = _BUCKET,
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what there is and what would be made; make nothing."),
    as_json: bool = _JSON,
) -> None:
    """Make what launches need in your account, and remember where your runs go.

    A bucket that nobody else can read, the role and instance profile of hosts, a security group without any way in,
    the role of spot requests. What is there stays as it is. Nothing of it costs anything but what lies in the bucket.
    """
    from runctl.platforms.aws import choices
    from runctl.platforms.aws.account import State

    account, who = _account(region, bucket)
    if not as_json:
        _show_identity(who, account)
    steps: list[Step] = []
    for step in account.steps(make=not dry_run):
        steps.append(step)
        if not as_json:
            line(step.state.value, step.what, " · ".join(filter(None, (step.state.value, step.why))))
    trouble, way_out = _way_out(account)
    if not as_json:
        line("ok" if trouble is None else "", "subnets", trouble or way_out)
    refused = [step for step in steps if step.state in (State.REFUSED, State.FAILED)]
    has_bucket = not dry_run and steps[0].state in (State.THERE, State.MADE)
    if has_bucket:
        choices.save(account.choices)
    if as_json:
        told = {"account": who.account, **asdict(account.choices), "root": account.choices.root, "subnets": trouble,
                "steps": [asdict(step) for step in steps]}  # fmt: skip
        typer.echo(json.dumps(told, ensure_ascii=False))
    elif has_bucket:
        typer.echo(f"\nKept in {choices.path()}: runs go to {account.choices.root} unless run.root says otherwise.")
    if refused and not as_json:
        typer.echo(
            "\nWhat was refused, an administrator can make with the same command. Or they give you the rights:\n"
            "  runctl aws policy setup       to make all this\n"
            "  runctl aws policy launcher    to launch"
        )
    if refused or trouble is not None:
        raise typer.Exit(int(ExitCode.NOT_ALLOWED))
    if not as_json and not dry_run:
        typer.echo("Ready: runctl-launch +platform=aws script=train.py dry_run=true shows what would be rented.")


@app.command()
def doctor(
    region: Optional[str] = _REGION,
    instance_type: Optional[str] = typer.Option(
        None, "--type", help="Of instances; without it the cheapest with one GPU of 24 GB.", metavar="TYPE"
    ),
    as_json: bool = _JSON,
) -> None:
    """Look at everything that a launch needs of your account. Nothing is changed, and nothing is spent."""
    from runctl.platforms.aws import AwsPlatform, choices
    from runctl.platforms.aws.clients import Clients
    from runctl.platforms.aws.doctor import Doctor, Health
    from runctl.platforms.aws.options import AwsConfig, AwsOptions
    from runctl.spec import Resources

    clients = Clients()
    clients.require_credentials()
    config = AwsConfig(region=region, instance_type=instance_type)
    options = AwsOptions.of(config, choices.region(clients.default_region), attached=True)
    found: list[Finding] = []
    for finding in Doctor(clients, options, AwsPlatform.default_root(), Resources()).findings():
        found.append(finding)
        if not as_json:
            line(finding.health.value, finding.what, finding.said)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False))
    missing = [one.what for one in found if one.health is Health.MISSING]
    if missing:
        if not as_json:
            typer.echo(f"\nMissing: {', '.join(missing)}.")
        raise typer.Exit(int(ExitCode.NOT_ALLOWED))
    if not as_json:
        typer.echo("\nNothing is missing.")


@app.command()
def policy(
    whose: Whose = typer.Argument(
        Whose.launcher,
        help="launcher: who launches; host: the role of hosts; setup: who runs `runctl aws setup`; cleanup: more, for "
        "`runctl cleanup`.",
    ),
    region: Optional[str] = _REGION,
    bucket: Optional[str] = _BUCKET,
    account_id: Optional[str] = typer.Option(
        None, "--account", help="Twelve digits; without it AWS is asked whose account it is.", metavar="ID"
    ),
) -> None:
    """Print a policy of IAM with the rights that are needed, and no more."""
    from runctl.platforms.aws import choices, policies
    from runctl.platforms.aws.account import Account, Identity
    from runctl.platforms.aws.clients import Clients

    if account_id is None:
        account, _ = _account(region, bucket)
    else:
        if not (account_id.isdigit() and len(account_id) == 12):
            raise ConfigError(f"--account {account_id}: an account's id has twelve digits")
        clients = Clients()
        where = region or choices.region(clients.default_region) or "us-east-1"
        account = Account(clients, where, Identity(account_id, f"arn:aws:iam::{account_id}:root"), bucket)
    documents = {
        "launcher": policies.launcher, "host": policies.host, "setup": policies.setup, "cleanup": policies.cleanup,
    }  # fmt: skip
    document = documents[whose.value]
    typer.echo(json.dumps(document(account.place), indent=2))


def _account(region: str | None, bucket: str | None) -> tuple[Account, Identity]:
    """The account of the credentials in use, with the bucket that was named, or chosen earlier.

    Raises:
        RunctlError: without credentials that are good.
    """
    from runctl.platforms.aws import account, choices
    from runctl.platforms.aws.clients import Clients

    clients = Clients()
    where = region or choices.region(clients.default_region) or "us-east-1"
    who = account.identity(clients, where)
    chosen = choices.saved()
    if bucket is None and chosen is not None and chosen.region == where:
        bucket = chosen.bucket
    return account.Account(clients, where, who, bucket), who


def _way_out(account: Account) -> tuple[str | None, str]:
    """What stands in the way of hosts in the default subnets, and else where they can live."""
    from runctl.errors import RunctlError

    try:
        found = account.way_out()
    except RunctlError as error:
        return str(error), ""
    return None, found.unknown or f"hosts can be reached in {', '.join(found.subnets)}"


def _show_identity(who: Identity, account: Account) -> None:
    typer.echo(f"account {who.account} · {who.arn} · {account.choices.region}\n")


def line(state: str, what: str, said: str) -> None:
    """One line, or on a terminal as many as it takes, with a mark in colour."""
    mark = _MARKS.get(state, "✗")
    text = f"{what}: {said}" if said else what
    if sys.stdout.isatty():
        colour = {"✓": typer.colors.GREEN, "✗": typer.colors.RED, "?": typer.colors.YELLOW}.get(mark)
        mark = typer.style(mark, fg=colour)
        width = shutil.get_terminal_size().columns - 2
        text = "\n  ".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))
    typer.echo(f"{mark} {text}")
