"""The users' applications (service principals): what a user makes, and whether it lets in this service."""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from clouduploader.errors import CredentialsError, DataError, DeniedError
from clouduploader.platforms.azure import fields, rights
from clouduploader.plugin import (
    AccountGuide,
    Accounts,
    Context,
    Finding,
    JsonValue,
    Level,
    Platform,
    Reporter,
    Verification,
)
from clouduploader.util.cancel import Cancel

NAME = "clouduploader"
"""What the commands call application and role; the user may choose others."""
DESCRIPTION = "Lets a build service upload images (clouduploader)"
SUBSCRIPTION, GROUP = "SUBSCRIPTION-ID", "RESOURCE-GROUP"  # for the user to fill in


class ApplicationAccounts(Accounts):
    """See `clouduploader.plugin.Accounts`.

    Args:
        platform: Connects to Azure.
    """

    description = (
        "A user's account is an application in the user's Microsoft Entra tenant, with a role in one resource group. "
        "`account show` tells the user how to make it; its tenant, application_id and application_key are entered by "
        "`account set`."
    )
    extras: Mapping[str, str] = {
        "blob": "page blobs in a storage account of the resource group, as OBS uploads",
        "gallery": "versions in a gallery of the resource group",
    }
    scripts: Mapping[str, str] = {"commands": "commands for `az`, the last of which prints what is to be entered"}

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def guide(self, values: Mapping[str, str], *, extras: Sequence[str], reporter: Reporter) -> AccountGuide:
        """Say which role the application needs; asks nothing."""
        subscription = values.get("subscription_id") or SUBSCRIPTION
        scope = f"/subscriptions/{subscription}/resourceGroups/{GROUP}"
        role = rights.definition(NAME, DESCRIPTION, extras, scope)
        return AccountGuide(
            facts={"role": NAME, "scope": scope},
            policies={"role": role},
            scripts={"commands": commands(role, scope)},
        )

    def verify(self, values: Mapping[str, str], *, reporter: Reporter) -> Verification:
        """Log in, and look into each resource group that is shown: what may be done there, and what too much.

        One in which an upload may do all that it needs is enough; others are warned of.
        """
        for name in ("application_id", "tenant"):
            if not values.get(name):
                hint = f"Enter it with `clouduploader account set USER {name} --target azure`."
                raise DataError(f"the account has no {name} yet", hint=hint)
        if found := fields.login_problems(values):
            raise DataError(found[0])
        ctx = Context(self._platform, values, reporter, Cancel())
        from clouduploader.platforms.azure import check, upload
        from clouduploader.platforms.azure.arm import ResourceManager

        subject = f"tenant {values['tenant']}"
        try:
            subscription = upload.subscription_id(ctx)
            path = f"/subscriptions/{subscription}/resourceGroups"
            groups = list(ResourceManager(ctx).list(path, subject="the resource groups", needed=("id", "name")))
        except (CredentialsError, DeniedError) as exc:
            return Verification(
                (Finding(Level.FAILURE, subject, exc.message, exc.hint),), is_usable=False, is_open=False
            )
        findings = [Finding(Level.OK, subject, f"lets us in, and shows subscription {subscription}")]
        if not groups:
            message = f"subscription {subscription} shows no resource group"
            findings.append(Finding(Level.FAILURE, subject, message, check.ROLE_HINT))
        by_group = [_look(ctx, group) for group in groups]
        is_usable = any(all(finding.level is not Level.FAILURE for finding in found) for found in by_group)
        for finding in (one for found in by_group for one in found):
            is_enough = is_usable and finding.level is Level.FAILURE  # there is another one that will do
            findings.append(dataclasses.replace(finding, level=Level.WARNING) if is_enough else finding)
        return Verification(tuple(findings), is_usable=is_usable, is_open=False)


def _look(ctx: Context, group: Mapping[str, Any]) -> list[Finding]:
    """Look what may be done in a resource group."""
    from clouduploader.platforms.azure import check

    name = f"resource group {group['name']}"
    try:
        return [*check.compared(name, check.permissions(ctx, str(group["id"]), name), ())]
    except DeniedError as exc:
        return [Finding(Level.FAILURE, name, exc.message, exc.hint)]


def commands(role: Mapping[str, JsonValue], scope: str) -> str:
    """Make commands of the az program for a shell, a line each."""
    lines = [
        ["az", "role", "definition", "create", "--role-definition", json.dumps(role)],
        ["az", "ad", "sp", "create-for-rbac", "--name", NAME, "--role", NAME, "--scopes", scope],
    ]
    return "\n".join(shlex.join(line) for line in lines)
