"""The files of Azure in a sandbox at its start: settings, a key for OBS's secrets, target data for uploads by hand."""

import json
import re
from collections.abc import Mapping
from typing import Any

from clouduploader.sandbox.azure.account import AzureAccount
from clouduploader.sandbox.azure.layout import AzureLayout
from clouduploader.store import keyring

PASSED_VARIABLES = ("REQUESTS_CA_BUNDLE",)
LINE_LENGTH = 60  # of base64 as Ruby writes it, and OBS with it


def prepare(layout: AzureLayout, account: AzureAccount, resource_manager: str) -> dict[str, Any]:
    """Make all files as at the start.

    Args:
        layout: Where; the home is there and empty.
        account: What there is.
        resource_manager: Its address.

    Returns:
        What sandbox.json says of Azure.
    """
    settings = f"[worker]\npass_environment = {' '.join(PASSED_VARIABLES)}\n\n[azure]\ncloud = {resource_manager}\n"
    (layout.home / "clouduploader.conf").write_text(settings)
    keyring.Keyring(layout.home, {}).rsa.generate()
    layout.target_data.touch(mode=0o600)
    layout.target_data.write_text(json.dumps(_clear_data(account)) + "\n")
    return {
        "resource_manager": resource_manager,
        "tenant": account.tenant,
        "subscription": account.subscription,
        "resource_group": account.group,
        "location": account.location,
        "storage_account": account.storage_account,
        "container": account.container,
        "application_id": account.application_id,
        "application_key": account.application_key,
        "target_data": str(layout.target_data),
    }


def target_data(layout: AzureLayout, account: AzureAccount) -> dict[str, Any]:
    """Return what OBS would send: its secrets are encrypted for the key in the home."""
    rsa = keyring.Keyring(layout.home, {}).rsa
    secrets = {
        name: "\n".join(re.findall(f".{{1,{LINE_LENGTH}}}", "".join(rsa.encrypt(value).split()))) + "\n"
        for name, value in _secrets(account).items()
    }
    return {"user_id": 7, **secrets, **_places(account), "subscription": account.tenant, "image_name": "sample"}


def describe_image(described: Mapping[str, Any], result: str) -> dict[str, str]:
    """Return what Resource Manager tells of an image, asked as the application; by a command in the sandbox."""
    import azure.identity
    import requests

    root = described["resource_manager"]
    query = {"api-version": "2022-09-01"}
    endpoints = requests.get(f"{root}/metadata/endpoints", params=query, timeout=30).json()
    credential = azure.identity.ClientSecretCredential(
        described["tenant"],
        described["application_id"],
        described["application_key"],
        authority=endpoints["authentication"]["loginEndpoint"],
        disable_instance_discovery=True,
    )
    token = credential.get_token(f"{root}/.default").token
    answer = requests.get(
        f"{root}{result}",
        params={"api-version": "2024-07-01"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    answer.raise_for_status()
    image = answer.json()
    disk = image["properties"]["storageProfile"]["osDisk"]
    return {
        "id": image["id"],
        "location": image["location"],
        "provisioningState": image["properties"]["provisioningState"],
        "hyperVGeneration": image["properties"]["hyperVGeneration"],
        "osType": disk["osType"],
        "osState": disk["osState"],
        "diskSizeGB": str(disk["diskSizeGB"]),
    }


def _secrets(account: AzureAccount) -> dict[str, str]:
    return {"application_id": account.application_id, "application_key": account.application_key}


def _places(account: AzureAccount) -> dict[str, str]:
    return {
        "resource_group": account.group,
        "storage_account": account.storage_account,
        "container": account.container,
    }


def _clear_data(account: AzureAccount) -> dict[str, str]:
    return {"tenant": account.tenant, **_secrets(account), **_places(account)}
