"""The users' roles, which let in this service with the user's external id: made up, explained, tried.

The external id is there against the "confused deputy" (IAM User Guide, of that title): one user of the
service tells it the role of another one, and the service, which that role trusts, uploads for him into
the other's account. So each user has an external id that the service alone chooses, and a role is right
only if it lets no caller in with none or another.
"""

import dataclasses
import json
import secrets
import shlex
from collections.abc import Mapping, Sequence

from clouduploader.errors import ConfigError, DataError
from clouduploader.platforms.ec2 import auth, aws_errors, rights
from clouduploader.platforms.ec2.ec2uploadimg import helper_config
from clouduploader.platforms.ec2.rights import Document
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import AccountGuide, Accounts, Finding, Level, PlatformContext, Reporter, Verification

EXTERNAL_ID_LENGTH = 24  # OBS: Rails's has_secure_token, 24 characters of base58, which are 140 bits
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"  # SecureRandom.base58: without 0, O, I and l
FALLBACK_REGION = "us-east-1"  # whose STS every account can use
PROBE_SECONDS = 900  # the shortest session there is (API reference of AssumeRole); it is not used

NAME = "clouduploader"
"""What the commands call the role; the user may choose another. CloudFormation makes up a name of its own."""
PATH = "/clouduploader/"
"""Of the role, so that the service's own user can be let assume such roles only, see `roles` in the settings."""
CONSOLES = {
    "aws": "https://console.aws.amazon.com",
    "aws-cn": "https://console.amazonaws.cn",
    "aws-us-gov": "https://console.amazonaws-us-gov.com",
}
"""Of AWS, by partition."""
BOUNDARY_DESCRIPTION = "What the role of clouduploader can do at most"
DESCRIPTION = "Lets a build service upload images (clouduploader)"  # IAM API, CreateRole: at most 1000 characters


class RoleAccounts(Accounts):
    """See `clouduploader.plugin.Accounts`.

    Args:
        context: Of the platform.
        settings: See Ec2Settings.
    """

    description = (
        "A user's account is a role in an AWS account, which lets in this service with an external id that is that "
        "user's alone. `account show` tells the user how to make it; its ARN is entered by `account set USER arn ARN`."
    )
    extras: Mapping[str, str] = rights.EXTRAS
    scripts: Mapping[str, str] = {
        "cloudformation": "a template of the role, whose output RoleArn is wanted",
        "commands": "commands for `aws`, whose last one prints the ARN",
    }

    def __init__(self, context: PlatformContext, settings: Ec2Settings) -> None:
        self._context = context
        self._settings = settings

    def new_values(self) -> Mapping[str, str]:
        """Make up an external id."""
        return {"external_id": _new_external_id()}

    def guide(self, values: Mapping[str, str], *, extras: Sequence[str], reporter: Reporter) -> AccountGuide:
        """Say which role the user has to make; asks STS for our account."""
        external_id = self._value(values, "external_id")
        home, profile, region = self._context.home, self._settings.profile, self._sts_region()
        caller = auth.CallerAccount(home, profile, is_role_wanted=True, region=region, reporter=reporter)
        we = caller.identity(caller.keys())
        trust = rights.trust(partition=we.partition, account_id=we.account_id, external_id=external_id)
        names = rights.names(self._settings.method, extras)
        permissions = {name: rights.permissions(name, we.partition) for name in names}
        boundary = rights.boundary(we.partition) if rights.BOUNDARY in extras else None
        console = CONSOLES.get(we.partition)
        return AccountGuide(
            facts={"account_id": we.account_id, "external_id": external_id},
            policies={"trust": trust, **permissions, **({rights.BOUNDARY: boundary} if boundary else {})},
            scripts={
                "cloudformation": template(trust, permissions, boundary),
                "commands": commands(trust, permissions, boundary),
            },
            consoles={"cloudformation": f"{console}/cloudformation/home#/stacks/create"} if console else {},
        )

    def verify(self, values: Mapping[str, str], *, reporter: Reporter) -> Verification:
        """Assume the role as an upload would, then without an external id and with a wrong one."""
        arn, external_id = self._value(values, "arn"), self._value(values, "external_id")
        subject = f"role {arn}"
        findings = []
        refusal = self._refusal(arn, external_id, self._settings.session_seconds, reporter)
        if refusal:
            findings.append(Finding(Level.FAILURE, subject, refusal.message, refusal.hint))
        else:
            findings.append(Finding(Level.OK, subject, "lets us in with the external id"))
        is_open = False
        for what, probe in (("without an external id", ""), ("with a wrong external id", _new_external_id())):
            if self._refusal(arn, probe, PROBE_SECONDS, reporter):
                findings.append(Finding(Level.OK, subject, f"is closed to a caller {what}"))
                continue
            is_open = True
            findings.append(
                Finding(
                    Level.FAILURE,
                    subject,
                    f"is open to anyone who uses this service: it lets us in {what} (confused deputy)",
                    "Every user who knows its ARN can upload into that account. Its trust policy must have the "
                    "condition on sts:ExternalId that `clouduploader account show` prints.",
                )
            )
        return Verification(tuple(findings), is_usable=refusal is None, is_open=is_open)

    def _refusal(
        self, arn: str, external_id: str, session_seconds: int, reporter: Reporter
    ) -> aws_errors.NotTrustedError | None:
        """Try to get in; None if we did. What is no answer to that is raised."""
        account = auth.Account(
            home=self._context.home,
            settings=dataclasses.replace(self._settings, session_seconds=session_seconds),
            targetdata={"arn": arn, "external_id": external_id, "region": self._sts_region()},
            session=auth.session_name(user="verify", job_name=None),
            policy=rights.NOTHING,
            reporter=reporter,
        )
        try:
            account.fresh_keys()
        except aws_errors.NotTrustedError as exc:
            return exc
        return None

    def _sts_region(self) -> str:
        """Choose the region whose STS is asked: an account has none of its own."""
        if self._settings.sts_region:
            return self._settings.sts_region
        try:
            return next(iter(helper_config.names(self._context.home)), FALLBACK_REGION)
        except ConfigError:  # without ec2uploadimg that file is not needed
            return FALLBACK_REGION

    @staticmethod
    def _value(values: Mapping[str, str], name: str) -> str:
        if not values.get(name):
            raise DataError(
                f"the account has no {name} yet", hint=f"Enter it with `clouduploader account set USER {name} VALUE`."
            )
        return values[name]


def _new_external_id() -> str:
    return "".join(secrets.choice(BASE58) for _ in range(EXTERNAL_ID_LENGTH))


def template(trust: Document, permissions: Mapping[str, Document], boundary: Document | None) -> str:
    """Make a CloudFormation template of the role; its output RoleArn is what the service must be told."""
    properties = {
        "Description": DESCRIPTION,
        "Path": PATH,
        "AssumeRolePolicyDocument": trust,
        "Policies": [{"PolicyName": name, "PolicyDocument": document} for name, document in permissions.items()],
    }
    resources: dict[str, object] = {"Role": {"Type": "AWS::IAM::Role", "Properties": properties}}
    if boundary:
        properties["PermissionsBoundary"] = {"Ref": "Boundary"}
        described = {"Description": BOUNDARY_DESCRIPTION, "Path": PATH, "PolicyDocument": boundary}
        resources["Boundary"] = {"Type": "AWS::IAM::ManagedPolicy", "Properties": described}
    document = {
        "AWSTemplateFormatVersion": "2010-09-09",  # the only one there is
        "Description": DESCRIPTION,
        "Resources": resources,
        "Outputs": {"RoleArn": {"Value": {"Fn::GetAtt": ["Role", "Arn"]}}},
    }
    return json.dumps(document, indent=2)


def commands(trust: Document, permissions: Mapping[str, Document], boundary: Document | None) -> str:
    """Make commands of the aws program for a shell, a line each; the last one prints the role's ARN.

    With a boundary the first one prints the ARN of that, which the second one takes from the shell's variable.
    """
    named, placed = ("--role-name", NAME), ("--path", PATH)
    trusted = ("--description", DESCRIPTION, "--assume-role-policy-document", json.dumps(trust))
    lines = [_command("create-role", *named, *placed, *trusted)]
    if boundary:
        written = ("--description", BOUNDARY_DESCRIPTION, "--policy-document", json.dumps(boundary))
        created = _command("create-policy", "--policy-name", f"{NAME}-boundary", *placed, *written, *_shown("Policy"))
        lines = [f"boundary=$({created})", f'{lines[0]} --permissions-boundary "$boundary"']
    lines += [
        _command("put-role-policy", *named, "--policy-name", name, "--policy-document", json.dumps(document))
        for name, document in permissions.items()
    ]
    return "\n".join([*lines, _command("get-role", *named, *_shown("Role"))])


def _command(*words: str) -> str:
    return shlex.join(["aws", "iam", *words])


def _shown(kind: str) -> tuple[str, ...]:
    return "--query", f"{kind}.Arn", "--output", "text"
