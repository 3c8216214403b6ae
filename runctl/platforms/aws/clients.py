"""AWS's clients, one for each service and region, and the translation of what they raise."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any

from runctl.errors import ConfigError, NotAllowed, PlatformError
from runctl.storage.s3 import EXPIRED, refused_right, share_descriptions

#: Errors of the account, its rights or its credentials: every offer and every retry would meet them again.
NOT_ALLOWED = (
    "UnauthorizedOperation",
    "AuthFailure",
    "OptInRequired",
    "PendingVerification",
    "Blocked",
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
)
#: Those that come of a right which somebody can give.
DENIED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")
_WHOM_TO_ASK = "an administrator can give you that right: `runctl aws policy` prints all that launches need"
#: What a refusal does not say by itself: the right that was missing.
_UNNAMED = {
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": "it needs the right iam:CreateServiceLinkedRole for "
    "spot.amazonaws.com, once in an account's life: `runctl aws setup` does that, or a first spot instance of "
    "somebody who may",
}
THROTTLED = ("RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled", "SlowDown")
#: What a request meets that may have been carried out all the same.
LOST = ("InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable", "RequestTimeout")
#: Thousands of letters that only `sts:DecodeAuthorizationMessage` can read.
_ENCODED = re.compile(r"Encoded authorization failure message: \S+")
_HOW_TO_SIGN_IN = "set AWS_PROFILE, run `aws sso login` or `aws configure`, or set AWS_ACCESS_KEY_ID"


class Clients:
    """boto3's clients, made when they are needed and shared among threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], Any] = {}
        self._buckets: dict[str, str | None] = {}
        self._session: Any = None

    @property
    def session(self) -> Any:
        """The session of this user's own settings.

        Raises:
            ConfigError: for a profile that does not exist.
        """
        import boto3
        from botocore.exceptions import BotoCoreError
        from botocore.session import get_session

        if self._session is None:
            try:
                session = get_session()
                share_descriptions(session)
                self._session = boto3.Session(botocore_session=session)
            except BotoCoreError as error:
                raise ConfigError(f"AWS: {error}; {_HOW_TO_SIGN_IN}") from error
        return self._session

    @property
    def default_region(self) -> str | None:
        region: str | None = self.session.region_name
        return region

    @property
    def has_credentials(self) -> bool:
        """Whether there are any; whether they are good, the first call tells."""
        from botocore.exceptions import BotoCoreError

        try:
            return self.session.get_credentials() is not None
        except BotoCoreError:
            return False

    def require_credentials(self) -> None:
        """Check that there are credentials.

        Raises:
            ConfigError: saying how to get some.
        """
        if not self.has_credentials:
            raise ConfigError(f"platform=aws: there are no AWS credentials here; {_HOW_TO_SIGN_IN}")

    def renew(self) -> None:
        """Read the credentials anew: someone may have signed in again."""
        with self._lock:
            self._made.clear()
            self._session = None

    def ec2(self, region: str) -> Any:
        return self._client("ec2", region)

    def launch(self, region: str) -> Any:
        """EC2 without retries: no capacity is an HTTP 500 there, which botocore would ask for again by itself."""
        return self._client("ec2", region, attempts=1)

    def ssm(self, region: str) -> Any:
        return self._client("ssm", region)

    def s3(self, region: str | None = None) -> Any:
        return self._client("s3", region or self.default_region or "us-east-1")

    def region_of(self, bucket: str) -> str | None:
        """Where a bucket lies, asked once."""
        from botocore.exceptions import ClientError

        if bucket not in self._buckets:
            try:
                self._buckets[bucket] = self.s3().head_bucket(Bucket=bucket).get("BucketRegion")
            except ClientError as error:
                # S3 tells it with a refusal too: whoever may use one prefix may not see the whole bucket.
                headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
                if "x-amz-bucket-region" not in headers:
                    # The answer to a HEAD has no words; this one says what is wrong.
                    self.s3().list_objects_v2(Bucket=bucket, MaxKeys=1)
                self._buckets[bucket] = headers.get("x-amz-bucket-region")
        return self._buckets[bucket]

    def iam(self) -> Any:
        """Roles are the same in every region."""
        return self._client("iam", self.default_region or "us-east-1")

    def sts(self, region: str) -> Any:
        return self._client("sts", region)

    def quotas(self, region: str) -> Any:
        return self._client("service-quotas", region)

    def pricing(self) -> Any:
        """Prices on demand are served in three regions, for all of them."""
        return self._client("pricing", "us-east-1")

    def _client(self, service: str, region: str, attempts: int = 4) -> Any:
        from botocore.config import Config

        key = (f"{service}/{attempts}", region)
        session = self.session
        with self._lock:
            if key not in self._made:
                # An endpoint that does not answer must not hold a launch up for a minute and more.
                config = Config(
                    connect_timeout=5,
                    read_timeout=20,
                    retries={"mode": "standard", "total_max_attempts": attempts},
                    user_agent_extra="runctl",
                    **({"signature_version": "s3v4"} if service == "s3" else {}),
                )
                self._made[key] = session.client(service, region_name=region, config=config)
            return self._made[key]


def code_of(error: BaseException) -> str:
    """AWS's name of an error; empty for one of the network or of botocore."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def said(error: BaseException) -> str:
    """What an error says, in one line."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        told = response["Error"]
        return " ".join(_ENCODED.sub("", f"{told.get('Code', '')}: {told.get('Message', '')}").split())
    return " ".join(f"{type(error).__name__}: {error}".split())


def _of_s3(error: BaseException) -> str:
    """The right that S3 missed, which it names nowhere; empty for what another service says."""
    text = str(getattr(error, "response", {}).get("Error", {}).get("Message", ""))
    right = refused_right(error)
    return f"it needs the right {right} there" if right is not None and "authorized" not in text else ""


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """What AWS raises, in our words.

    Raises:
        ConfigError: without credentials.
        NotAllowed: if the account, its rights or its credentials are in the way.
        PlatformError: for everything else that AWS or the network says.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ConfigError(f"{what}: {error}; {_HOW_TO_SIGN_IN}") from error
    except ClientError as error:
        if code_of(error) in EXPIRED:
            raise NotAllowed(f"{what}: the AWS credentials have expired; sign in again ({said(error)})") from error
        if code_of(error) in NOT_ALLOWED:
            unnamed = _UNNAMED.get(code_of(error)) or _of_s3(error)
            whom = _WHOM_TO_ASK if code_of(error) in DENIED else None
            told = [said(error).rstrip("."), unnamed, whom] if unnamed or whom else [said(error)]
            raise NotAllowed(f"{what}: {'; '.join(filter(None, told))}") from error
        raise PlatformError(f"{what}: {said(error)}") from error
    except BotoCoreError as error:
        raise PlatformError(f"{what}: {said(error)}") from error
