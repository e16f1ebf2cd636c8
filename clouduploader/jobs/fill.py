"""Fill target data from the account that the service keeps for a job's user."""

import json

from clouduploader.errors import NoSuchAccountError, TargetDataError
from clouduploader.store import accounts, keyring, target_data
from clouduploader.store.config import Config
from clouduploader.uploads import registry


def fill(config: Config, data: bytes, *, user: str, target: str, is_bound: bool) -> bytes:
    """Return target data with the values of the user's account, checked by the target's platform.

    Args:
        config: The settings; its home has the accounts.
        data: As a client sent them; may be empty.
        user: Whose job it is.
        target: The platform.
        is_bound: Whether the account may be no other: ids that open one are no secrets, and the service, which knows
            them all, would open for one user what is another's. Else what the client says goes before it, and data
            that are encrypted as a whole stay as they are.

    Raises:
        UnknownTargetError: There is no such platform.
        NoSuchAccountError: The user has none, and the platform needs one.
        TargetDataError: They are wrong; or the account may be no other, and they name one or hide it.
    """
    platform = registry.load(target, config)
    if target_data.is_armored(data.decode("utf-8", "replace")):
        if not is_bound:
            return data
        raise TargetDataError("the target data are encrypted as a whole", hint="Encrypt what is secret in them alone.")
    given = target_data.parse(data or b"{}")
    names = [field.name for field in platform.fields if field.is_of_account]
    account: dict[str, str] = {}
    try:
        account = accounts.AccountStore(config.home.value).get(user, target)
    except NoSuchAccountError:
        is_needed = is_bound or not any(given.get(name) for name in names)
        if names and platform.needs_account and is_needed:
            raise
    if is_bound:
        foreign = [name for name in names if given.get(name) not in (None, "", account.get(name))]
        if foreign:
            raise TargetDataError(
                f"the target data may not have {', '.join(foreign)}: that is taken from the account of {user}",
                hint="`clouduploader account set` enters it there.",
            )
    filled = json.dumps({**given, **account} if is_bound else {**account, **given}).encode()
    target_data.check(filled, platform, keyring.Keyring(config.home.value, config.environment))
    return filled
