"""The keys of section `[server]` that say how users sign in."""

import enum
import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from clouduploader.errors import ConfigError
from clouduploader.util.frozen import frozen

NOTHING = "none"
ANY = "any"  # for `openid_users`: every account at the provider is a user
KEYS = frozenset(
    {"sign_in", "hosts", "openid_issuer", "openid_client_id", "openid_name", "openid_scopes", "openid_user_claim",
     "openid_role_claim", "openid_users", "openid_admins"}
)  # fmt: skip
LONGEST_SECONDS = 2_592_000  # of a session: 30 days
LIMITS = {"session_idle_seconds": (60, LONGEST_SECONDS), "session_max_seconds": (60, LONGEST_SECONDS)}
_URL = re.compile(r"[!-~]+")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Way(enum.StrEnum):
    """How a user can sign in."""

    TOKEN = "token"  # noqa: S105 a name
    OPENID = "openid"


@frozen(kw_only=True)
class OpenIdSettings:
    """A provider, and who its accounts are here.

    Attributes:
        issuer: Its URL, which its configuration and its tokens must have.
        client_id: What it calls this service.
        name: What users call it.
        scopes: What is asked for.
        user_claim: The claim that is the user's name here.
        role_claim: The claim whose values decide on the role.
        users: Values that make a user; `any` lets every account in.
        admins: Values that make an admin.
    """

    issuer: str
    client_id: str
    name: str
    scopes: tuple[str, ...]
    user_claim: str
    role_claim: str
    users: tuple[str, ...]
    admins: tuple[str, ...]


@frozen(kw_only=True)
class SignInSettings:
    """How users sign in.

    Attributes:
        ways: None of them: there is no sign-in.
        hosts: The names of this service, as browsers send them, without a port.
        session_idle_seconds: After so much time without a use a session ends.
        session_max_seconds: After so much time it ends in any case.
        openid: The provider; None without one.
    """

    ways: tuple[Way, ...] = ()
    hosts: tuple[str, ...] = LOOPBACK_NAMES
    session_idle_seconds: int = 3600
    session_max_seconds: int = 43_200
    openid: OpenIdSettings | None = None

    def is_own_host(self, host: str) -> bool:
        """Return whether a `Host` header names this service: another name was made to lead here (DNS rebinding)."""
        name = host.lower()
        if not name.endswith("]"):
            name = name.rpartition(":")[0] or name
        return name in self.hosts


def load(section: Mapping[str, str], path: Path, *, numbers: Mapping[str, int]) -> SignInSettings:
    """Read the keys.

    Args:
        section: All of `[server]`.
        path: Of the settings file, for messages.
        numbers: The values of LIMITS that are given, checked.

    Raises:
        ConfigError: A value is none that its key can have, or one is missing.
    """
    words = (section.get("sign_in") or NOTHING).split()
    ways = () if words == [NOTHING] else tuple(dict.fromkeys(words))
    if unknown := set(ways) - set(Way):
        raise ConfigError(f"{path}: sign_in is '{unknown.pop()}', not {NOTHING}, {' or '.join(Way)}")
    hosts = tuple(word.lower() for word in (section.get("hosts") or "").split())
    for host in hosts:
        if urllib.parse.urlsplit(f"//{host}").netloc != host or (":" in host and not host.endswith("]")):
            raise ConfigError(f"{path}: hosts has '{host}', not a name such as upload.example.org, without a port")
    return SignInSettings(
        ways=tuple(Way(way) for way in ways),
        hosts=hosts or LOOPBACK_NAMES,
        openid=_openid(section, path) if Way.OPENID in ways else None,
        **{key: numbers[key] for key in LIMITS if key in numbers},
    )


def _openid(section: Mapping[str, str], path: Path) -> OpenIdSettings:
    for key in ("openid_issuer", "openid_client_id"):
        if not section.get(key):
            raise ConfigError(f"{path}: sign_in has openid, so {key} is needed")
    issuer = section["openid_issuer"]
    if not is_safe_url(issuer):
        raise ConfigError(f"{path}: openid_issuer is '{issuer}', not a URL with https")
    users, admins = (tuple((section.get(key) or "").split()) for key in ("openid_users", "openid_admins"))
    if not (users or admins):
        raise ConfigError(
            f"{path}: neither openid_users nor openid_admins says who may sign in",
            hint=f"Name values of the claim openid_role_claim, or `openid_users = {ANY}` for every account there.",
        )
    return OpenIdSettings(
        issuer=issuer,
        client_id=section["openid_client_id"],
        name=section.get("openid_name") or urllib.parse.urlsplit(issuer).hostname or issuer,
        scopes=tuple((section.get("openid_scopes") or "openid profile").split()),
        user_claim=section.get("openid_user_claim") or "sub",
        role_claim=section.get("openid_role_claim") or "groups",
        users=users,
        admins=admins,
    )


def is_safe_url(url: str) -> bool:
    """Return whether nothing that is sent to a URL can be read on its way: by TLS, or because it stays on this host."""
    if not _URL.fullmatch(url):
        return False  # `urlsplit` passes over the ends of lines, and a header ends there
    try:
        found = urllib.parse.urlsplit(url)
        if found.scheme == "http" and found.hostname:
            return ipaddress.ip_address(found.hostname).is_loopback
    except ValueError:
        return False
    return found.scheme == "https" and bool(found.hostname) and found.username is None
