"""Users' accounts in the clouds: made, filled, explained, verified, removed. What is secret never comes back."""

import asyncio
import functools
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from aiohttp import web
from msgspec import Meta

from clouduploader.admin import accounts as admin_accounts
from clouduploader.errors import NoSuchAccountError, TakenValueError
from clouduploader.plugin import Level
from clouduploader.plugin.events import NullReporter
from clouduploader.server.access import Right
from clouduploader.server.api import documents
from clouduploader.server.api.endpoint import ROOT, Endpoint, endpoint
from clouduploader.server.call import RouteCall
from clouduploader.server.replies import RefusalError
from clouduploader.store.accounts import StoredAccount

T = TypeVar("T")


class AccountEntry(documents.Document):
    """A user's account in a cloud."""

    user: str
    target: Annotated[str, Meta(description="The platform's name.")]
    created: documents.Time
    values: Annotated[dict[str, str], Meta(description="What is known of it, by the names of the platform's fields.")]
    secrets: Annotated[list[str], Meta(description="The names of those that are kept, but not shown.")]


class AccountList(documents.Document):
    """Accounts."""

    accounts: list[AccountEntry]


class AccountFilter(documents.Given):
    """Which accounts are wanted."""

    user: Annotated[documents.Text, Meta(description="Of this user.")] = ""
    target: Annotated[documents.Text, Meta(description="For this target.")] = ""


class AccountOwner(documents.Given):
    """Whose account it is."""

    user: Annotated[documents.Text, Meta(description="The user; the own one unless given.")] = ""


class GuideQuery(documents.Given):
    """What the guide is to tell."""

    user: Annotated[documents.Text, Meta(description="The user; the own one unless given.")] = ""
    extra: Annotated[
        tuple[str, ...],
        Meta(description="What the service is to be allowed besides: names of the platform's `extras`."),
    ] = ()


class NewAccount(documents.Given):
    """An account that is to be made."""

    target: Annotated[documents.Filled, Meta(description="The platform's name.")]
    user: Annotated[documents.Text, Meta(description="The user; the own one unless given.")] = ""


class AccountValues(documents.Given):
    """What is to be entered into an account."""

    values: Annotated[dict[str, str], Meta(description="By the names of the platform's fields; others stay.")]


class AccountGuide(documents.Document):
    """What a user has to do in the cloud, so that the service gets into the account."""

    facts: dict[str, str]
    policies: Annotated[dict[str, Any], Meta(description="As the cloud's console takes them.")]
    scripts: Annotated[dict[str, str], Meta(description="The same, ready to be run.")]
    consoles: Annotated[dict[str, str], Meta(description="Pages of the cloud's console that take a script.")]


class FindingEntry(documents.Document):
    """Something that was tried."""

    level: Level
    subject: Annotated[str, Meta(description="What was looked at.")]
    message: Annotated[str, Meta(description="What was found.")]
    hint: Annotated[str | None, Meta(description="What to do about it.")]


class AccountVerification(documents.Document):
    """What came out when an account was tried."""

    usable: Annotated[bool, Meta(description="Whether the service gets in.")]
    open: Annotated[bool, Meta(description="Whether every user of this service does.")]
    findings: list[FindingEntry]


async def list_accounts(call: RouteCall) -> web.StreamResponse:
    """List accounts."""
    given = documents.query(call, AccountFilter)
    found = await asyncio.to_thread(admin_accounts.list_accounts, call.state.config, None)
    wanted = [
        _entry(one)
        for one in found
        if call.owner in (None, one.user) and given.user in ("", one.user) and given.target in ("", one.target)
    ]
    return documents.answer(AccountList(wanted))


async def create_account(call: RouteCall) -> web.StreamResponse:
    """Make an account, with what the service gives to it."""
    given = await documents.read(call, NewAccount)
    user = _user(call, given.user)
    made = await asyncio.to_thread(admin_accounts.create, call.state.config, user, given.target)
    _tell(call, "account_created", user, given.target)
    return documents.answer(_entry(made), status=201, location=f"{ROOT}/accounts/{given.target}")


async def show_account(call: RouteCall) -> web.StreamResponse:
    """Tell what is known of an account."""
    user, target = _place(call)
    return documents.answer(await _shown(call, user, target))


async def change_account(call: RouteCall) -> web.StreamResponse:
    """Enter values into an account; what the service itself has chosen, no user can change."""
    user, target = _place(call)
    given = await documents.read(call, AccountValues)
    config = call.state.config

    def enter() -> None:
        if call.owner is not None and (chosen := given.values.keys() & admin_accounts.given_names(config, target)):
            raise RefusalError(f"{', '.join(sorted(chosen))} is chosen by the service", status=403)
        fields = {name: admin_accounts.find_field(config, target, name) for name in given.values}
        for name, value in given.values.items():
            admin_accounts.check(fields[name], value)  # all of them before one is entered
        for name, value in given.values.items():
            try:
                admin_accounts.enter(config, user, target, field=fields[name], value=value)
            except TakenValueError as exc:
                if call.owner is None:
                    raise
                raise RefusalError(f"this {name} belongs to another account already", status=409) from exc

    await _on_account(call, user, target, enter)
    _tell(call, "account_changed", user, target)
    return documents.answer(await _shown(call, user, target))


async def remove_account(call: RouteCall) -> web.StreamResponse:
    """Remove an account; nothing in the cloud is changed."""
    user, target = _place(call)
    await _on_account(call, user, target, lambda: admin_accounts.remove(call.state.config, user, target))
    _tell(call, "account_removed", user, target)
    return documents.nothing()


async def show_guide(call: RouteCall) -> web.StreamResponse:
    """Tell what the user has to do in the cloud; asks the cloud."""
    user, target = _place(call)
    given = documents.query(call, GuideQuery)

    def guide() -> AccountGuide:
        found = admin_accounts.show(call.state.config, user, target, extras=given.extra, reporter=NullReporter()).guide
        return AccountGuide(dict(found.facts), dict(found.policies), dict(found.scripts), dict(found.consoles))

    return documents.answer(await _ask(call, user, target, guide))


async def verify_account(call: RouteCall) -> web.StreamResponse:
    """Try whether the service gets into an account, and no other user by it; asks the cloud."""
    user, target = _place(call)

    def verify() -> AccountVerification:
        found = admin_accounts.verify(call.state.config, user, target, reporter=NullReporter())
        findings = [FindingEntry(one.level, one.subject, one.message, one.hint) for one in found.findings]
        return AccountVerification(found.is_usable, found.is_open, findings)

    return documents.answer(await _ask(call, user, target, verify))


def _place(call: RouteCall) -> tuple[str, str]:
    """Return user and target of the account that a request names.

    Raises:
        RefusalError: It is another user's.
    """
    values = call.found.values.get("user", ())
    user = _user(call, values[0] if values else "")
    return user, call.found.parts["target"]


def _user(call: RouteCall, given: str) -> str:
    """Return whose account is meant: the one who asks, unless that one may name others.

    Raises:
        RefusalError: It is another user's, or no user is named.
    """
    user = given or call.principal.user or ""
    if call.owner is not None and user != call.owner:
        raise _missing()
    if not user:
        raise RefusalError("user is empty")
    return user


async def _on_account(call: RouteCall, user: str, target: str, function: Callable[[], T]) -> T:
    """In a thread: do something with an account that must be there.

    Raises:
        RefusalError: It is not.
        ClouduploaderError: It can't be done.
    """
    return await asyncio.to_thread(_with_account, call, user, target, function)


async def _ask(call: RouteCall, user: str, target: str, function: Callable[[], T]) -> T:
    """Do the same where the cloud is asked; see `CloudThreads.run`."""
    work = functools.partial(_with_account, call, user, target, function)
    return await call.state.clouds.run(call.principal.user or "", work)


def _with_account(call: RouteCall, user: str, target: str, function: Callable[[], T]) -> T:
    if not any(one.target == target for one in _all_of(call, user)):
        raise _missing()
    try:
        return function()
    except NoSuchAccountError as exc:  # removed meanwhile
        raise _missing() from exc


def _all_of(call: RouteCall, user: str) -> list[StoredAccount]:
    return [one for one in admin_accounts.list_accounts(call.state.config, None) if one.user == user]


async def _shown(call: RouteCall, user: str, target: str) -> AccountEntry:
    def find() -> AccountEntry:
        return next(_entry(one) for one in _all_of(call, user) if one.target == target)

    return await _on_account(call, user, target, find)


def _missing() -> RefusalError:
    return RefusalError("there is no such account", status=404)


def _entry(account: StoredAccount) -> AccountEntry:
    shown = {name: value for name, value in account.values.items() if name not in account.encrypted}
    return AccountEntry(account.user, account.target, account.created, shown, sorted(account.encrypted))


def _tell(call: RouteCall, event: str, user: str, target: str) -> None:
    call.state.log.tell(event, user=user, target=target, by=call.principal.user)


_OF_ONE: dict[str, Any] = {"query": AccountOwner, "refusals": (404,)}
ROUTES: list[Endpoint] = [
    endpoint("/accounts", list_accounts, Right.KEEP_ACCOUNTS, query=AccountFilter, answer=AccountList),
    endpoint(
        "/accounts",
        create_account,
        Right.KEEP_ACCOUNTS,
        methods=("POST",),
        body=NewAccount,
        answer=AccountEntry,
        status=201,
        refusals=(404, 409),
    ),
    endpoint("/accounts/$target", show_account, Right.KEEP_ACCOUNTS, answer=AccountEntry, **_OF_ONE),
    endpoint(
        "/accounts/$target",
        change_account,
        Right.KEEP_ACCOUNTS,
        methods=("PUT",),
        body=AccountValues,
        answer=AccountEntry,
        query=AccountOwner,
        refusals=(404, 409),
    ),
    endpoint("/accounts/$target", remove_account, Right.KEEP_ACCOUNTS, methods=("DELETE",), status=204, **_OF_ONE),
    endpoint(
        "/accounts/$target/guide",
        show_guide,
        Right.KEEP_ACCOUNTS,
        query=GuideQuery,
        answer=AccountGuide,
        refusals=(404,),
    ),
    endpoint(
        "/accounts/$target/verify",
        verify_account,
        Right.KEEP_ACCOUNTS,
        methods=("POST",),
        answer=AccountVerification,
        **_OF_ONE,
    ),
]
