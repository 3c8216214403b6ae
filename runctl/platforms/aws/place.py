"""The account that runs are rented in, and what of it is runctl's: names as IAM writes them (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runctl.errors import ConfigError

#: What lets an instance's own agent speak with SSM; attached to the host's role beside `policies.host`.
SSM_CORE = "AmazonSSMManagedInstanceCore"
#: For whom EC2 keeps a role of its own in every account that has rented a spot instance.
SPOT_SERVICE = "spot.amazonaws.com"
SPOT_ROLE = "AWSServiceRoleForEC2Spot"
#: How services are called in each part of AWS.
_PARTITIONS = {"aws": "amazonaws.com", "aws-cn": "amazonaws.com.cn", "aws-us-gov": "amazonaws.com"}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NAME = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Place:
    """The account that a policy is for, and what of it is runctl's.

    Attributes:
        account: its number, 12 digits.
        bucket: that holds run directories.
        prefix: below which they lie; empty for the whole bucket.
        profile: the host's instance profile.
        role: the role in it.
        partition: `aws`, `aws-cn` or `aws-us-gov`.

    Raises:
        ConfigError: for a value that cannot be, or that would mean something else in a policy.
    """

    account: str
    bucket: str
    prefix: str = ""
    profile: str = "runctl"
    role: str = "runctl"
    partition: str = "aws"

    def __post_init__(self) -> None:
        if re.fullmatch(r"\d{12}", self.account) is None:
            raise ConfigError(f"account={self.account}: an AWS account's number has 12 digits")
        if self.partition not in _PARTITIONS:
            raise ConfigError(f"partition={self.partition}: it is one of {', '.join(_PARTITIONS)}")
        if _BUCKET.fullmatch(self.bucket) is None:
            raise ConfigError(f"bucket={self.bucket}: no bucket can be called that")
        for key in ("profile", "role"):
            if _NAME.fullmatch(getattr(self, key)) is None:
                raise ConfigError(f"{key}={getattr(self, key)}: letters, digits and +=,.@_-, 64 at most")
        if any(character in self.prefix for character in "*?$"):
            raise ConfigError(f"prefix={self.prefix}: *, ? and $ have a meaning in policies; choose another run.root")
        object.__setattr__(self, "prefix", self.prefix.strip("/"))

    def arn(self, service: str, resource: str, *, region: str = "", account: str | None = None) -> str:
        """The name of a resource of this account; `account` is another's, or empty for what is AWS's own."""
        whose = self.account if account is None else account
        return f"arn:{self.partition}:{service}:{region}:{whose}:{resource}"

    @property
    def bucket_arn(self) -> str:
        return self.arn("s3", self.bucket, account="")

    @property
    def objects_arn(self) -> str:
        return f"{self.bucket_arn}/{self.prefix}/*" if self.prefix else f"{self.bucket_arn}/*"

    @property
    def role_arn(self) -> str:
        return self.arn("iam", f"role/{self.role}")

    @property
    def profile_arn(self) -> str:
        return self.arn("iam", f"instance-profile/{self.profile}")

    @property
    def ssm_core_arn(self) -> str:
        return self.arn("iam", f"policy/{SSM_CORE}", account="aws")

    @property
    def ec2_service(self) -> str:
        """EC2 as roles trust it and are passed to it."""
        return f"ec2.{_PARTITIONS[self.partition]}"

    @property
    def spot_role_arn(self) -> str:
        return self.arn("iam", f"role/aws-service-role/{SPOT_SERVICE}/{SPOT_ROLE}")

    @property
    def parameters_arn(self) -> str:
        """Secrets on their way to a host, in any region."""
        return self.arn("ssm", "parameter/runctl/*", region="*")
