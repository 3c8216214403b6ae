"""Who signed a request, and which policies are theirs: the drill's own account, IAM's users, the roles of instances."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runctl.drill.ec2 import ACCOUNT
from runctl.drill.metadata import LAUNCHER

#: That EC2 makes with an account's first spot instance, or whoever sets the account up.
SPOT_ROLE = "AWSServiceRoleForEC2Spot"
#: AWS's own policies that a host's role is given; the rest of moto's copy of them takes seconds to read.
_AWS_POLICIES = ("AmazonSSMManagedInstanceCore",)


@dataclass(frozen=True)
class Caller:
    """Whoever asks.

    Attributes:
        name: as IAM writes it.
        policies: documents, all that count.
        is_root: the account itself, which may do everything.
    """

    name: str
    policies: tuple[dict[str, Any], ...] = ()
    is_root: bool = False

    @property
    def context(self) -> dict[str, list[str]]:
        user = self.name.rsplit("/", 1)[-1] if ":user/" in self.name else None
        return {"aws:principalarn": [self.name], **({"aws:username": [user]} if user else {})}


class Callers:
    """Everybody who has keys; signatures themselves are not looked at."""

    def __init__(self) -> None:
        self._hosts: dict[str, tuple[str, str]] = {}

    @staticmethod
    def prepare() -> None:
        """Put into moto's IAM what AWS has in every account."""
        from moto.iam import models
        from moto.iam.aws_managed_policies import aws_managed_policies_data

        known = json.loads(aws_managed_policies_data)
        backend = _backend()
        for name in _AWS_POLICIES:
            policy = models.AWSManagedPolicy.from_data(name, ACCOUNT, "us-east-1", known[name])
            backend.managed_policies[policy.arn] = policy
        # How the role is called that EC2 keeps for spot instances.
        models.SERVICE_NAME_CONVERSION.setdefault("spot", "EC2Spot")

    def give_keys(self, instance: str, profile: str) -> tuple[str, str] | None:
        """Keys for an instance.

        Args:
            instance: its id.
            profile: that it is launched with; its name or ARN, or nothing.

        Returns:
            The role's name and an access key; None without a role.
        """
        roles = roles_of(profile)
        if not roles:
            return None
        key = f"ASIA{instance.removeprefix('i-').upper()}"
        self._hosts[key] = (str(roles[0].name), instance)
        return str(roles[0].name), key

    def of(self, key: str) -> Caller | None:
        """Whose an access key is; None if it is nobody's."""
        if key == LAUNCHER:
            return Caller(f"arn:aws:iam::{ACCOUNT}:root", is_root=True)
        backend = _backend()
        if key in self._hosts:
            role, instance = self._hosts[key]
            found = backend.roles.values()
            policies = [policy for one in found if one.name == role for policy in _of_role(one)]
            return Caller(f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{instance}", tuple(policies))
        for user in backend.users.values():
            if any(one.access_key_id == key for one in user.access_keys):
                return Caller(f"arn:aws:iam::{ACCOUNT}:user{user.path}{user.name}", tuple(_of_user(backend, user)))
        return None

    def of_instance(self, instance: str) -> Caller | None:
        """The role of an instance."""
        return next((self.of(key) for key, (_, one) in self._hosts.items() if one == instance), None)


def roles_of(profile: str) -> list[Any]:
    """moto's roles in an instance profile, which is named by its name or its ARN."""
    name = profile.rsplit("/", 1)[-1]
    return [role for one in _backend().instance_profiles.values() if one.name == name for role in one.roles]


def unknown_profile(asked: str) -> str | None:
    """What EC2 says of an instance profile that is not there, by its name or ARN; None of one that is, or of none."""
    name = asked.rsplit("/", 1)[-1]
    if not asked or any(one.name == name for one in _backend().instance_profiles.values()):
        return None
    field = "arn" if asked.startswith("arn:") else "name"
    return f"Value ({asked}) for parameter iamInstanceProfile.{field} is invalid. Invalid IAM Instance Profile {field}"


def role_names() -> list[str]:
    """Every role of the account."""
    return [str(role.name) for role in _backend().roles.values()]


def _of_role(role: Any) -> Iterator[dict[str, Any]]:
    for document in role.policies.values():
        yield _read(document)
    yield from map(_default, role.managed_policies.values())


def _of_user(backend: Any, user: Any) -> Iterator[dict[str, Any]]:
    groups = [group for group in backend.groups.values() if any(one.name == user.name for one in group.users)]
    for one in (user, *groups):
        for document in one.policies.values():
            yield _read(document)
        yield from map(_default, one.managed_policies.values())


def _default(policy: Any) -> dict[str, Any]:
    """A managed policy in the version that counts."""
    version = next(one for one in policy.versions if one.version_id == policy.default_version_id)
    return _read(version.document)


def _read(document: Any) -> dict[str, Any]:
    told: dict[str, Any] = document if isinstance(document, dict) else json.loads(document)
    return told


def _backend() -> Any:
    """moto's own books of IAM."""
    from moto.iam.models import iam_backends

    return iam_backends[ACCOUNT]["aws"]
