"""The users' application credentials: which rights they need, and which they have.

Keystone says with each token what a credential may: its roles, whether it may make further credentials, and its access
rules, without which it may do all that its roles may, and not in Glance alone.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from clouduploader.errors import ClouduploaderError, CredentialsError, DataError, TransientError
from clouduploader.platforms.openstack.cloud import SERVICE
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

if TYPE_CHECKING:
    from clouduploader.platforms.openstack.cloud import Cloud

ROLE = "member"  # Glance's policy: the least that may make images
READER = "reader"
WIDE_ROLES = frozenset({"admin", "manager"})  # Keystone's own, above member
UPLOAD_RULES = (
    ("GET", "/v2/images"),
    ("POST", "/v2/images"),
    ("GET", "/v2/images/*"),
    ("PUT", "/v2/images/*/file"),
    ("DELETE", "/v2/images/*"),
)
EXTRA_RULES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "members": (("POST", "/v2/images/*/members"), ("GET", "/v2/images/*/members")),
    "staging": (("PUT", "/v2/images/*/stage"), ("POST", "/v2/images/*/import")),
}
_PATH_TOKEN = re.compile(r"(\*\*)|(\*|\{[^}]*\})|(.)")
"""Of an access rule, as keystonemiddleware reads it: what stands for anything, for one part of a path, for itself."""


class CredentialAccounts(Accounts):
    """See `clouduploader.plugin.Accounts`.

    Args:
        platform: Connects to the cloud.
    """

    description = (
        "A user's account is an application credential of a project in an OpenStack cloud. `account show` tells the "
        "user how to make it; `account set USER application_credential_id ID` enters it, and so its secret, and the "
        "cloud by its name in clouds.yaml or its auth_url."
    )
    extras: Mapping[str, str] = {
        "members": "share images with other projects",
        "staging": "upload by method glance-direct",
    }
    scripts: Mapping[str, str] = {"commands": "a command for `openstack`, which prints id and secret"}

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def guide(self, values: Mapping[str, str], *, extras: Sequence[str], reporter: Reporter) -> AccountGuide:
        """Say which credential the user has to make. No network."""
        granted = rules(extras)
        facts = {"role": ROLE, **{name: values[name] for name in ("cloud", "auth_url") if values.get(name)}}
        return AccountGuide(facts=facts, policies={"access_rules": granted}, scripts={"commands": command(granted)})

    def verify(self, values: Mapping[str, str], *, reporter: Reporter) -> Verification:
        """Log in as an upload would, look what the credential may, and list an image in each region."""
        for name in ("application_credential_id", "application_credential_secret"):
            if not values.get(name):
                raise DataError(
                    f"the account has no {name} yet",
                    hint=f"Enter it with `clouduploader account set USER {name} --target openstack`.",
                )
        if problems := self._platform.problems(values):
            raise DataError(problems[0])
        ctx = Context(self._platform, values, reporter, Cancel(), is_by_hand=False)
        try:
            findings = list(examine(ctx))
        except CredentialsError as exc:
            failure = Finding(Level.FAILURE, _subject(values), exc.message, exc.hint)
            return Verification((failure,), is_usable=False, is_open=False)
        is_usable = all(finding.level is not Level.FAILURE for finding in findings)
        return Verification(tuple(findings), is_usable=is_usable, is_open=False)


def rules(extras: Sequence[str]) -> list[JsonValue]:
    """Make the access rules that an upload needs."""
    return documents([*UPLOAD_RULES, *(rule for extra in extras for rule in EXTRA_RULES[extra])])


def documents(wanted: Sequence[tuple[str, str]]) -> list[JsonValue]:
    """Write rules as Keystone takes them."""
    return [{"service": SERVICE, "method": method, "path": path} for method, path in wanted]


def command(access_rules: Sequence[JsonValue]) -> str:
    """Make the command for a shell that makes the credential."""
    words = ["openstack", "application", "credential", "create", "clouduploader", "--role", ROLE]
    words += ["--access-rules", json.dumps(access_rules), "-f", "value", "-c", "id", "-c", "secret"]
    return shlex.join(words)


def examine(ctx: Context) -> Iterator[Finding]:
    """Log in, and say what the credential may, and what more than it needs. Uses the network.

    Raises:
        CredentialsError: It does not let us in.
        ClouduploaderError: It can't be tried.
    """
    cloud: Cloud = ctx.client
    subject = _subject(ctx.targetdata)
    with ctx.translated(cloud.auth_url):
        access = cloud.access()
    roles = access.role_names or []
    yield Finding(Level.OK, subject, f"lets us in: project {access.project_name}, roles {', '.join(roles) or 'none'}")
    hint = "Make another one by the command that `clouduploader account show` prints."
    if wide := WIDE_ROLES.intersection(roles):
        yield Finding(Level.WARNING, subject, f"has the role {', '.join(sorted(wide))}, and {ROLE} is enough", hint)
    credential: Mapping[str, object] = access.application_credential or {}
    if credential.get("restricted") is False:
        yield Finding(Level.WARNING, subject, "is unrestricted: it can make further credentials", hint)
    granted = credential.get("access_rules")
    if credential and granted is None:
        yield Finding(Level.WARNING, subject, "has no access rules: it may do more than upload images", hint)
    if lacking := _lacking(granted):
        yield Finding(Level.FAILURE, subject, f"has no access rules for {', '.join(lacking)}", hint)
    if set(roles) == {READER}:
        yield Finding(Level.FAILURE, subject, f"has the role {READER} only, which makes no images", hint)
    regions = [ctx.region] if ctx.region else cloud.regions()
    if not regions:
        yield Finding(Level.FAILURE, cloud.auth_url, "shows no image service in any region")
    for region in regions:
        try:
            with ctx.translated(f"region {region}"):
                next(cloud.images(region).find(limit="1", owner=cloud.project_id()), None)
        except TransientError:
            raise
        except ClouduploaderError as exc:
            yield Finding(Level.FAILURE, f"region {region}", exc.message, exc.hint)
        else:
            yield Finding(Level.OK, f"region {region}", "its image service lets us list images")


def _lacking(granted: object) -> list[str]:
    """List the rules of an upload that no access rule covers; nothing where there are none, so that all is allowed."""
    if not isinstance(granted, list):
        return []
    rules_of_images = [rule for rule in granted if isinstance(rule, dict) and rule.get("service") == SERVICE]
    return [
        f"{method} {path}"
        for method, path in UPLOAD_RULES
        if not any(rule.get("method") == method and _covers(str(rule.get("path")), path) for rule in rules_of_images)
    ]


def _covers(rule_path: str, path: str) -> bool:
    tokens = _PATH_TOKEN.finditer(rule_path)
    pattern = "".join(".*" if token[1] else "[^/]+" if token[2] else re.escape(token[3]) for token in tokens)
    return re.fullmatch(pattern, path) is not None


def _subject(values: Mapping[str, JsonValue]) -> str:
    found = values.get("application_credential_id")
    return f"credential {found}" if found else "own credentials"
