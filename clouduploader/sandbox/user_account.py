"""The account that the person who uses a sandbox has in its cloud, for `submit`."""

import datetime
import json

from clouduploader.sandbox import sealing
from clouduploader.sandbox.cloud import SandboxCloud
from clouduploader.sandbox.layout import Layout
from clouduploader.store import accounts
from clouduploader.uploads import registry


def create(cloud: SandboxCloud, layout: Layout, user: str) -> None:
    """Make the account in the sandbox's home, as `account create` and `account set` would: secrets encrypted.

    Args:
        cloud: Of the sandbox.
        layout: Of the sandbox, with sandbox.json in it.
        user: Whose account it is.
    """
    values = cloud.account_values(json.loads(layout.description.read_text()))
    fields = registry.load_without_settings(cloud.target).fields
    secrets = {field.name for field in fields if field.is_secret and field.name in values}
    clear = {name: value for name, value in values.items() if name not in secrets}
    store = accounts.AccountStore(layout.home)
    store.create(user, cloud.target, clear, now=datetime.datetime.now(datetime.UTC))
    for name in secrets:
        store.set(user, cloud.target, name, value=sealing.encrypt(layout.home, values[name]), is_encrypted=True)
