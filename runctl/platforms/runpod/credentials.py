"""What a pod writes to object storage with: a session that ends by itself, and lives longer than the run may.

A pod has no role. From keys of this user's AWS makes a session of up to 36 hours (STS, GetSessionToken), which goes to
the pod over SSH and nowhere else. Stores that only speak S3, such as R2 and B2, make none: for those RunPod keeps the
keys, as secrets by name.
"""

from __future__ import annotations

import os
import time
from typing import Any

from runctl.errors import ConfigError, NotAllowed
from runctl.spec import LaunchSpec

#: Of GetSessionToken for a user (docs.aws.amazon.com, STS, GetSessionToken): seconds.
_SHORTEST_S, _LONGEST_S = 900, 129600
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
#: What leads to the store, and travels along.
_PLACES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION")
BY_NAME = (
    "keep them as RunPod secrets and name those: secrets.AWS_ACCESS_KEY_ID=runpod:my_key_id "
    "secrets.AWS_SECRET_ACCESS_KEY=runpod:my_key"
)


def needed(spec: LaunchSpec) -> bool:
    """Whether a run's host needs credentials that it does not have from elsewhere."""
    kept = (spec.run.root, spec.checkpoint.url or "", spec.checkpoint.origin or "")
    places = (*kept, *(one.source for one in spec.data.inputs),
              *(one.target for one in spec.data.outputs))  # fmt: skip
    on_s3 = any(place.startswith(("s3://", "s3a://")) for place in places)
    return on_s3 and not all(name in spec.secrets for name in _KEYS)


def place() -> dict[str, str]:
    """What of this user's environment leads to the store: its endpoint and region, no secrets."""
    return {name: os.environ[name] for name in _PLACES if os.environ.get(name)}


def session(lives_s: float) -> dict[str, str]:
    """Credentials for a host, as variables.

    Args:
        lives_s: how long the host may live (seconds).

    Raises:
        ConfigError: without credentials here, or if none live so long; then it says when these end.
        NotAllowed: if AWS makes no session for them.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    made = boto3.Session()
    found = made.get_credentials()
    if found is None:
        raise ConfigError("run.root is on S3, and there are no AWS credentials here to make the pod's from; " + BY_NAME)
    if found.token:
        return {**_lasting(found, lives_s), **place()}
    if lives_s > _LONGEST_S:
        raise ConfigError(
            f"limits.max_time: a pod may live for {lives_s / 3600:.1f} h then, and AWS makes no session of more than "
            f"{_LONGEST_S / 3600:.0f} h; shorten it, or {BY_NAME}"
        )
    try:
        told = made.client("sts", region_name=made.region_name or "us-east-1").get_session_token(
            DurationSeconds=max(_SHORTEST_S, int(lives_s) + 1)
        )["Credentials"]
    except (BotoCoreError, ClientError) as error:
        said = " ".join(str(error).split())
        raise NotAllowed(f"run.root is on S3, and no session for the pod can be made: {said}; {BY_NAME}") from error
    return {
        "AWS_ACCESS_KEY_ID": str(told["AccessKeyId"]),
        "AWS_SECRET_ACCESS_KEY": str(told["SecretAccessKey"]),
        "AWS_SESSION_TOKEN": str(told["SessionToken"]),
        **place(),
    }


def _lasting(found: Any, lives_s: float) -> dict[str, str]:
    """A session that is there already, such as one of `aws sso login`: no other can be made from it."""
    ends = getattr(found, "_expiry_time", None)
    ends_at = None if ends is None else ends.timestamp()
    if ends_at is None or ends_at < time.time() + lives_s:
        when = "at an unknown time" if ends_at is None else time.strftime("at %H:%M:%S UTC on %F", time.gmtime(ends_at))
        raise ConfigError(
            f"the AWS credentials here are a session that ends {when}, and the pod may live for {lives_s / 3600:.1f} h "
            f"(limits.max_time): shorten that, use keys of a user, or {BY_NAME}"
        )
    keys = found.get_frozen_credentials()
    return {
        "AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key, "AWS_SESSION_TOKEN": keys.token,
    }  # fmt: skip
