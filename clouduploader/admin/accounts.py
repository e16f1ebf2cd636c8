"""Manage the users' accounts in the clouds: make, fill, explain and verify them."""

import datetime
from collections.abc import Mapping, Sequence

from clouduploader.errors import DataError, TargetDataError, UnavailableError, UsageError
from clouduploader.plugin import AccountGuide, Accounts, Field, Platform, Reporter, Verification
from clouduploader.plugin.fields import is_allowed, problem
from clouduploader.store import accounts, keyring, target_data
from clouduploader.store.config import Config
from clouduploader.uploads import registry
from clouduploader.util import masking
from clouduploader.util.frozen import frozen


@frozen()
class AccountDetails:
    """An account, and what its user has to do for it.

    Attributes:
        account: See StoredAccount.
        guide: See AccountGuide.
    """

    account: accounts.StoredAccount
    guide: AccountGuide


def create(config: Config, user: str, target: str) -> accounts.StoredAccount:
    """Make an account for a user, with what the service itself gives to it.

    Raises:
        UnavailableError: The target has no accounts.
        ClouduploaderError: See AccountStore.create.
    """
    platform, kept = _load(config, target)
    of_one_user = {field.name for field in platform.fields if field.is_of_one_user}
    now = datetime.datetime.now(datetime.UTC)
    return _store(config).create(user, target, kept.new_values(), of_one_user=of_one_user, now=now)


def find_field(config: Config, target: str, name: str) -> Field:
    """Find a field that accounts for a target have.

    Raises:
        UnavailableError: The target has no accounts.
        UsageError: They have no such field.
    """
    platform, _kept = _load(config, target)
    fields = {field.name: field for field in platform.fields if field.is_of_account}
    if name not in fields:
        hint = f"It has: {', '.join(fields)}."
        raise UsageError(f"an account for {target} has no field {name!r}", hint=hint)
    return fields[name]


def given_names(config: Config, target: str) -> set[str]:
    """Return the names of the fields that the service itself fills, and that no user may choose: see `create`.

    Raises:
        UnavailableError: The target has no accounts.
    """
    return set(_load(config, target)[1].new_values())


def enter(config: Config, user: str, target: str, *, field: Field, value: str) -> None:
    """Enter a value into an account; if its field is secret, encrypted for the key in the home.

    Raises:
        TargetDataError: The value is not one that the field takes.
        MissingFileError: It is to be encrypted, but there is no key.
        ClouduploaderError: See AccountStore.set.
    """
    check(field, value)
    kept = _keys(config).encrypt(value) if field.is_secret else value
    _store(config).set(
        user, target, field.name, value=kept, is_encrypted=field.is_secret, is_of_one_user=field.is_of_one_user
    )


def check(field: Field, value: str) -> None:
    """Refuse a value that a field of an account does not take.

    Raises:
        TargetDataError: It is none.
    """
    if not is_allowed(field, value) or not value:
        raise TargetDataError(problem(field, value, is_hidden=field.is_secret))


def list_accounts(config: Config, target: str | None) -> list[accounts.StoredAccount]:
    """List all accounts, or those for a target.

    Raises:
        UnknownTargetError: There is neither an account for the target nor a platform.
    """
    found = _store(config).accounts(target=target)
    if target and not found:
        registry.load_without_settings(target)
    return found


def show(config: Config, user: str, target: str, *, extras: Sequence[str], reporter: Reporter) -> AccountDetails:
    """Show an account, and what its user has to do in the cloud. Uses the network.

    Raises:
        UnavailableError: The target has no accounts.
        UsageError: There is no such extra.
        NoSuchAccountError: The user has none.
        ClouduploaderError: See Accounts.guide.
    """
    _platform, kept = _load(config, target)
    for extra in extras:
        if extra not in kept.extras:
            hint = f"There are: {', '.join(kept.extras)}." if kept.extras else None
            raise UsageError(f"there are no permissions called '{extra}'", hint=hint)
    account = _store(config).find(user, target)
    values = _decrypted(config, account)
    return AccountDetails(account, kept.guide(values, extras=extras, reporter=reporter))


def verify(config: Config, user: str, target: str, *, reporter: Reporter) -> Verification:
    """Verify that the service gets into an account. Uses the network.

    Raises:
        UnavailableError: The target has no accounts.
        NoSuchAccountError: The user has none.
        ClouduploaderError: See Accounts.verify.
    """
    _platform, kept = _load(config, target)
    return kept.verify(_decrypted(config, _store(config).find(user, target)), reporter=reporter)


def remove(config: Config, user: str, target: str) -> None:
    """Remove an account from the home; nothing in the cloud is changed. Its platform need not be there any more.

    Raises:
        NoSuchAccountError: The user has none.
    """
    _store(config).remove(user, target)


def _store(config: Config) -> accounts.AccountStore:
    return accounts.AccountStore(config.home.value)


def _keys(config: Config) -> keyring.Keyring:
    return keyring.Keyring(config.home.value, config.environment)


def _load(config: Config, target: str) -> tuple[Platform, Accounts]:
    platform = registry.load(target, config)
    kept = platform.accounts
    if kept is None:
        raise UnavailableError(f"the platform '{target}' has no accounts: uploads to it need none")
    return platform, kept


def _decrypted(config: Config, account: accounts.StoredAccount) -> Mapping[str, str]:
    keys = _keys(config)
    values = dict(account.values)
    for name in account.encrypted:
        try:
            own = keys.gpg if target_data.is_armored(values[name]) else keys.rsa
            values[name] = own.decrypt(values[name])
            masking.hide(values[name])
        except TargetDataError as exc:
            raise DataError(f"{name} of {account.user}'s account can't be used: {exc.message}") from exc
    return values
