"""IAM before everybody who answers: whoever lacks a right is refused, in the words of the service that is asked."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from runctl.drill.callers import SPOT_ROLE, Caller, Callers
from runctl.drill.ec2 import ACCOUNT
from runctl.drill.faults import Fault, answer
from runctl.drill.iam import Decision, decide
from runctl.drill.request import Request
from runctl.drill.rights import Need, listing, needs

_BECAUSE = {
    Decision.NOT_ALLOWED: "because no identity-based policy allows the {action} action",
    Decision.DENIED: "with an explicit deny in an identity-based policy",
}
#: What an instance's agent needs to be seen, and to be told anything.
_AGENT_NEEDS = ("ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel", "ssmmessages:OpenControlChannel")
_NOT_THE_SPOT_ROLE = (
    "The provided credentials do not have permission to create the service-linked role for EC2 Spot Instances."
)


@dataclass(frozen=True)
class Refusal:
    """What a request is answered instead of being carried out."""

    status: int
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def answer(self) -> tuple[int, str, bytes]:
        return self.status, self.kind, self.body


@dataclass(frozen=True)
class Denied:
    """A right that somebody needed and did not have."""

    caller: str
    action: str
    resource: str


class Guard:
    """Checks requests.

    Args:
        callers: who has keys.
        lock: of moto's books, which are made for one reader at a time.
    """

    def __init__(self, callers: Callers, lock: threading.RLock) -> None:
        self._callers = callers
        self._lock = lock
        self.denied: list[Denied] = []

    def refusal(self, request: Request) -> Refusal | None:
        """What to answer to a request that may not be carried out, or is only tried; None for all others."""
        with self._lock:
            caller = self._callers.of(request.key)
            if caller is None:
                return _unknown(request)
            for need in needs(request) if not caller.is_root else []:
                if (decision := self._decide(caller, need)) is not Decision.ALLOWED:
                    return _refused(request, caller, need, decision)
            if request.service == "ec2" and request.form.get("DryRun") == "true":
                fault = Fault(
                    request.action, "DryRunOperation", 412, "Request would have succeeded, but DryRun flag is set."
                )
                return Refusal(*answer(fault, "ec2", as_json=False))
            if request.market == "spot":
                _make_spot_role()
        return None

    def refusal_of_absence(self, request: Request) -> Refusal | None:
        """Whoever may not list is not told that there is no such object (S3's GetObject, "Permissions").

        A condition on `s3:prefix` is held against the object's own name there.
        """
        with self._lock:
            caller = self._callers.of(request.key)
            if caller is None or caller.is_root:
                return None
            need = listing(request.bucket, request.object_key)
            decision = self._decide(caller, need)
            return None if decision is Decision.ALLOWED else _refused(request, caller, need, decision)

    def may_report(self, instance: str) -> bool:
        """Whether an instance's role lets its agent speak with SSM."""
        with self._lock:
            caller = self._callers.of_instance(instance)
            return caller is not None and all(
                self._decide(caller, Need(action)) is Decision.ALLOWED for action in _AGENT_NEEDS
            )

    def _decide(self, caller: Caller, need: Need) -> Decision:
        decision = decide(caller.policies, need.action, need.resource, {**caller.context, **need.context})
        if decision is not Decision.ALLOWED:
            self.denied.append(Denied(caller.name, need.action, need.resource))
        return decision


def _refused(request: Request, caller: Caller, need: Need, decision: Decision) -> Refusal:
    because = _BECAUSE[decision].format(action=need.action)
    resource = "" if need.resource == "*" else f" on resource: {need.resource}"
    text = f"User: {caller.name} is not authorized to perform: {need.action}{resource} {because}"
    if request.service == "s3":
        return _s3_refusal(request, Fault(request.action, "AccessDenied", 403, "Access Denied"))
    if need.action == "iam:CreateServiceLinkedRole" and request.service == "ec2":
        code, text = "AuthFailure.ServiceLinkedRoleCreationNotPermitted", _NOT_THE_SPOT_ROLE
        return Refusal(*answer(Fault(request.action, code, 403, text), "ec2", as_json=False))
    if request.service == "ec2":
        text = f"You are not authorized to perform this operation. {text}"
        return Refusal(*answer(Fault(request.action, "UnauthorizedOperation", 403, text), "ec2", as_json=False))
    if request.target:
        return Refusal(
            *answer(Fault(request.action, "AccessDeniedException", 400, text), request.service, as_json=True)
        )
    return Refusal(*query_error("AccessDenied", 403, text))


def _unknown(request: Request) -> Refusal:
    """A key that is nobody's."""
    if request.service == "s3":
        text = "The AWS Access Key Id you provided does not exist in our records."
        return _s3_refusal(request, Fault(request.action, "InvalidAccessKeyId", 403, text))
    if request.service == "ec2":
        text = "AWS was not able to validate the provided access credentials"
        return Refusal(*answer(Fault(request.action, "AuthFailure", 401, text), "ec2", as_json=False))
    text = "The security token included in the request is invalid."
    if request.target:
        fault = Fault(request.action, "UnrecognizedClientException", 400, text)
        return Refusal(*answer(fault, request.service, as_json=True))
    return Refusal(*query_error("InvalidClientTokenId", 403, text))


def _s3_refusal(request: Request, fault: Fault) -> Refusal:
    """S3 names no right; and it tells where a bucket lies to everybody."""
    from moto.s3.models import s3_backends

    status, _, body = answer(fault, "s3", as_json=False)
    bucket = s3_backends[ACCOUNT]["aws"].buckets.get(request.bucket)
    region = () if bucket is None else (("x-amz-bucket-region", str(bucket.region_name)),)
    return Refusal(status, "application/xml", b"" if request.environ["REQUEST_METHOD"] == "HEAD" else body, region)


def query_error(code: str, status: int, text: str) -> tuple[int, str, bytes]:
    """IAM's and STS's way to say it."""
    body = (
        '<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{text}</Message></Error><RequestId>drill</RequestId></ErrorResponse>"
    )
    return status, "text/xml", body.encode()


def _make_spot_role() -> None:
    """What the first spot instance of an account makes, or whoever set the account up."""
    from moto.iam.models import iam_backends

    backend = iam_backends[ACCOUNT]["aws"]
    if all(role.name != SPOT_ROLE for role in backend.roles.values()):
        backend.create_service_linked_role("spot.amazonaws.com", "", "")
