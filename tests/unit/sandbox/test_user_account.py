import json

import pytest

from clouduploader.sandbox import registry, user_account
from clouduploader.sandbox.layout import Layout
from clouduploader.store import accounts, keyring
from clouduploader.uploads.registry import load_without_settings


class Described(dict):
    """A sandbox.json with whatever is asked for."""

    def __missing__(self, key):
        return f"the {key} of the sandbox"


@pytest.mark.parametrize("cloud", registry.CLOUDS.values(), ids=list(registry.CLOUDS))
def test_secrets_of_the_account_are_encrypted_for_the_key_of_the_home(cloud, tmp_path, monkeypatch):
    place = Layout(tmp_path)
    place.home.mkdir(mode=0o700)
    place.description.write_text(json.dumps({}))
    values = cloud().account_values(Described())
    monkeypatch.setattr(cloud, "account_values", lambda *_: values)
    user_account.create(cloud(), place, "tom")
    account = accounts.AccountStore(place.home).find("tom", cloud.target)
    fields = {field.name: field for field in load_without_settings(cloud.target).fields}
    assert account.encrypted == {name for name in values if fields[name].is_secret}
    keys = keyring.Keyring(place.home, {})
    found = {
        name: keys.decrypt(value) if name in account.encrypted else value for name, value in account.values.items()
    }
    assert found == values
