"""Permissions: the rules of STS and IAM that moto lacks.

Sources: the API reference of STS, "AssumeRole"; the error code list of the EC2 API; botocore's model.
"""

import datetime
import json
import re
from typing import Any

import moto.sts.urls
from moto.core.exceptions import _RESTError
from moto.core.utils import utcnow
from moto.iam.access_control import IAMRequest
from moto.iam.models import Role, iam_backends
from moto.sts.exceptions import STSValidationError
from moto.sts.models import AssumedRole, STSBackend, sts_backends

SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)  # AssumeRole, RoleSessionName
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\x21-\x7e]+")
MIN_SESSION_SECONDS = 900  # AssumeRole, DurationSeconds
MAX_SESSION_SECONDS = 43200


class AccessDeniedError(_RESTError):
    """STS's refusal; 403."""

    code = 403


class StrictSTS(STSBackend):
    """STS that looks at the role, and at what it is asked."""

    life_seconds: float | None = None  # of sessions, instead of what is asked for
    _url_module = moto.sts.urls  # moto would look for it beside this module

    def assume_role(
        self,
        region_name: str,
        role_session_name: str,
        role_arn: str,
        policy: str,
        duration: int,
        external_id: str,
    ) -> AssumedRole:
        """Check all arguments; moto gives a session for any role, without an external id."""
        if not SESSION_NAME.fullmatch(role_session_name or ""):
            raise STSValidationError(
                f"1 validation error detected: Value '{role_session_name}' at 'roleSessionName' failed to satisfy "
                f"constraint: Member must satisfy regular expression pattern: {SESSION_NAME.pattern}"
            )
        if not ROLE_ARN.fullmatch(role_arn or ""):
            raise STSValidationError(f"{role_arn} is invalid")
        if not MIN_SESSION_SECONDS <= duration <= MAX_SESSION_SECONDS:
            bound = MIN_SESSION_SECONDS if duration < MIN_SESSION_SECONDS else MAX_SESSION_SECONDS
            word = "greater" if duration < MIN_SESSION_SECONDS else "less"
            raise STSValidationError(
                f"1 validation error detected: Value '{duration}' at 'durationSeconds' failed to satisfy "
                f"constraint: Member must have value {word} than or equal to {bound}"
            )
        role = self._role(role_arn)
        if role is None:  # whether it trusts the caller was looked at before, see `install`
            raise AccessDeniedError(
                "AccessDenied", f"User is not authorized to perform: sts:AssumeRole on resource: {role_arn}"
            )
        if duration > int(role.max_session_duration or 3600):
            raise STSValidationError("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
        session = super().assume_role(region_name, role_session_name, role_arn, policy, duration, external_id)
        if self.life_seconds is not None:
            session.expiration = utcnow() + datetime.timedelta(seconds=self.life_seconds)
        return session

    def _role(self, arn: str) -> Role | None:
        roles = iam_backends[self.account_id]["aws"].roles.values()
        return next((role for role in roles if role.arn == arn), None)


def _is_trusted(request: IAMRequest, role_arn: str) -> bool:
    """Return whether a statement of a role's trust policy allows the caller, and none denies it.

    For moto a statement about another principal denies the caller, and an account does not stand for all its users.
    """
    statements = _listed(json.loads(request.backend.get_role_by_arn(role_arn).assume_role_policy_document)["Statement"])
    caller, external_id = request._access_key.arn, next(iter(request._data.get("ExternalId", [])), None)
    return {found["Effect"] for found in statements if _applies(found, caller, external_id)} == {"Allow"}


def _applies(statement: dict[str, Any], caller: str, external_id: str | None) -> bool:
    """Return whether a statement is about a caller with this external id; any other condition is an error."""
    account = caller.split(":")[4]
    known_as = {"*", caller, account, f"arn:aws:iam::{account}:root"}  # "IAM JSON policy elements: Principal"
    principal = statement["Principal"]
    if not known_as.intersection(_listed(principal["AWS"] if isinstance(principal, dict) else principal)):
        return False
    for operator, keys in statement.get("Condition", {}).items():
        wanted = _listed(keys["sts:ExternalId"])
        match operator:
            case "StringEquals":
                is_met = external_id in wanted
            case "StringNotEquals":  # met too where there is none ("IAM JSON policy elements: Condition operators")
                is_met = external_id not in wanted
            case "Null":
                is_met = wanted == [str(external_id is None).lower()]
            case _:
                raise NotImplementedError(operator)
        if not is_met:
            return False
    return True


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 whatever JSON has there
    """In a policy one of a kind can stand alone."""
    return value if isinstance(value, list) else [value]


class UnauthorizedOperationError(_RESTError):
    """EC2's own word for a right that is missing; 403."""

    code = 403


def _raise_access_denied(request: IAMRequest) -> None:
    arn, action = request._access_key.arn, request._action
    if request._service == "ec2":
        raise UnauthorizedOperationError(
            "UnauthorizedOperation",
            f"You are not authorized to perform this operation. User: {arn} is not authorized to perform: "
            f"{action} because no identity-based policy allows the {action} action",
        )
    raise AccessDeniedError("AccessDenied", f"User: {arn} is not authorized to perform: {action}")


def install() -> None:
    """Put the rules in place; before moto is used, once in a process."""
    sts_backends.backend = StrictSTS
    # Methods alone, because moto imports the class where it uses it.
    setattr(IAMRequest, "_raise_access_denied", _raise_access_denied)  # noqa: B010
    setattr(IAMRequest, "_check_role_trust_relationship", _is_trusted)  # noqa: B010
