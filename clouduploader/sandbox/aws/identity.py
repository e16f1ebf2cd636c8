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
from moto.ec2.models import ec2_backends
from moto.iam.access_control import IAMRequest
from moto.iam.models import Policy, Role, iam_backends
from moto.sts.exceptions import STSValidationError
from moto.sts.models import AssumedRole, STSBackend, sts_backends

from clouduploader.sandbox.aws.authorization import Ec2Call
from clouduploader.sandbox.aws.policies import Context, PolicyError, Request, Rights, check, is_met, listed

SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)  # AssumeRole, RoleSessionName
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\x21-\x7e]+")
MIN_SESSION_SECONDS = 900  # AssumeRole, DurationSeconds
MAX_SESSION_SECONDS = 43200
MAX_SESSION_POLICY = 2048  # characters; AssumeRole, Policy


def _check_session_policy(policy: str) -> None:
    """Check the policy of a session as STS does ("IAM and STS quotas"; AssumeRole, Policy)."""
    if len(policy) > MAX_SESSION_POLICY:
        raise STSValidationError(
            "1 validation error detected: Value at 'policy' failed to satisfy constraint: Member must have length "
            f"less than or equal to {MAX_SESSION_POLICY}"
        )
    try:
        check(policy)
    except PolicyError as exc:
        raise MalformedPolicyError("MalformedPolicyDocument", str(exc)) from exc


class MalformedPolicyError(_RESTError):
    """STS's refusal of a policy; 400."""

    code = 400


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
        if policy:
            _check_session_policy(policy)
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


def _check_action_permitted(request: IAMRequest, resource: str) -> None:
    """Ask IAM, in moto's place: by conditions, boundary and session too.

    The account's rights alone count, and to assume a role also whom that trusts.
    """
    if request._action == "sts:GetCallerIdentity":  # always allowed, even if it is denied
        return
    rights = rights_of(request.account_id, request._access_key._access_key_id)
    if request._service == "ec2":
        form = {name: values[0] for name, values in request._data.items() if values}
        call = Ec2Call(ec2_backends[request.account_id][request._region], form.get("Action", ""), form)
        if refused := call.refused(rights):
            request._action = refused.action
            request._raise_access_denied()
        return
    context: Context = {"aws:requestedregion": request._region}
    is_allowed = rights.allow(Request(request._action, resource, context))
    if is_allowed and request._is_assuming_role_operation(resource):
        is_allowed = _is_trusted(request, resource)
    if not is_allowed:
        request._raise_access_denied()


def rights_of(account_id: str, access_key_id: str) -> Rights:
    """Return what the owner of an access key may do; nothing if there is none."""
    iam = iam_backends[account_id]["aws"]
    session = sts_backends[account_id]["aws"].get_assumed_role_from_access_key(access_key_id)
    if session is not None:
        role = iam.get_role_by_arn(session.role_arn)
        boundary = role.permissions_boundary_arn
        return Rights(
            (*role.policies.values(), *(_document(policy) for policy in role.managed_policies.values())),
            _document(iam.managed_policies[boundary]) if boundary else None,
            session.policy or None,
        )
    for user in iam.users.values():
        if access_key_id in (key.access_key_id for key in user.access_keys):
            return Rights(tuple(user.policies.values()))
    return Rights(())


def _document(policy: Policy) -> str:
    document = next(version.document for version in policy.versions if version.is_default)
    return document if isinstance(document, str) else json.dumps(document)


def _is_trusted(request: IAMRequest, role_arn: str) -> bool:
    """Return whether a statement of a role's trust policy allows the caller, and none denies it.

    For moto a statement about another principal denies the caller, and an account does not stand for all its users.
    """
    statements = listed(json.loads(request.backend.get_role_by_arn(role_arn).assume_role_policy_document)["Statement"])
    external_id = next(iter(request._data.get("ExternalId", [])), None)
    context: Context = {} if external_id is None else {"sts:externalid": external_id}
    caller = request._access_key.arn
    about_us = [found for found in statements if _is_about(found, caller)]
    return {found["Effect"] for found in about_us if is_met(found.get("Condition", {}), context)} == {"Allow"}


def _is_about(statement: dict[str, Any], caller: str) -> bool:
    account = caller.split(":")[4]
    known_as = {"*", caller, account, f"arn:aws:iam::{account}:root"}  # "IAM JSON policy elements: Principal"
    principal = statement["Principal"]
    return bool(known_as.intersection(listed(principal["AWS"] if isinstance(principal, dict) else principal)))


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
    setattr(IAMRequest, "check_action_permitted", _check_action_permitted)  # noqa: B010
