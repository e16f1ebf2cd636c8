"""What an application must be allowed in its resource group: the role for it, and how much of it there is.

Source: "Azure permissions for Compute", "for Storage"; "Understand Azure role definitions".
"""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clouduploader.plugin import JsonValue
from clouduploader.util.frozen import frozen

_CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"
_VERSIONS = "Microsoft.Compute/galleries/images/versions"


@frozen()
class Rights:
    """Some actions, as role definitions name them.

    Attributes:
        actions: Of Resource Manager.
        data_actions: On what is stored.
    """

    actions: tuple[str, ...]
    data_actions: tuple[str, ...] = ()


BASE = Rights(
    (
        "Microsoft.Resources/subscriptions/resourceGroups/read",
        "Microsoft.Compute/images/read",
        "Microsoft.Compute/images/write",
        "Microsoft.Compute/images/delete",
        "Microsoft.Compute/disks/read",
        "Microsoft.Compute/disks/write",
        "Microsoft.Compute/disks/delete",
        "Microsoft.Compute/disks/beginGetAccess/action",
        "Microsoft.Compute/disks/endGetAccess/action",
    )
)
"""For a managed image by a managed disk."""
EXTRAS: Mapping[str, Rights] = {
    "blob": Rights(
        (
            "Microsoft.Storage/storageAccounts/read",
            f"{_CONTAINERS}/read",
            f"{_CONTAINERS}/write",
            f"{_CONTAINERS}/delete",
        ),
        (
            f"{_CONTAINERS}/blobs/read",
            f"{_CONTAINERS}/blobs/write",
            f"{_CONTAINERS}/blobs/add/action",
            f"{_CONTAINERS}/blobs/delete",
        ),
    ),
    "gallery": Rights(
        (
            "Microsoft.Compute/galleries/read",
            "Microsoft.Compute/galleries/images/read",
            f"{_VERSIONS}/read",
            f"{_VERSIONS}/write",
            f"{_VERSIONS}/delete",
        )
    ),
}
"""What comes on top for the method blob, and for versions in a gallery."""
TOO_MUCH = (
    "Microsoft.Authorization/roleAssignments/write",
    "Microsoft.Compute/virtualMachines/write",
    "Microsoft.KeyVault/vaults/write",
    "Microsoft.Network/virtualNetworks/write",
    "Microsoft.Resources/subscriptions/resourceGroups/delete",
    "Microsoft.Storage/storageAccounts/listKeys/action",
)
"""Samples of what no upload asks for; who has one of these has a role that is too wide."""


def chosen(extras: Iterable[str]) -> Rights:
    """Return what is needed with these extras."""
    parts = [BASE, *(EXTRAS[name] for name in extras)]
    return Rights(
        tuple(action for part in parts for action in part.actions),
        tuple(action for part in parts for action in part.data_actions),
    )


def definition(name: str, description: str, extras: Iterable[str], scope: str) -> dict[str, JsonValue]:
    """Make a role definition, as `az role definition create` takes it."""
    wanted = chosen(extras)
    return {
        "Name": name,
        "IsCustom": True,
        "Description": description,
        "Actions": list(wanted.actions),
        "NotActions": [],
        "DataActions": list(wanted.data_actions),
        "NotDataActions": [],
        "AssignableScopes": [scope],
    }


def missing(wanted: Rights, permissions: Sequence[Mapping[str, Any]]) -> list[str]:
    """List which of these actions an application may not do.

    Args:
        wanted: Which ones.
        permissions: As Resource Manager lists them ("Permissions - List For Resource Group").
    """
    return [
        *(action for action in wanted.actions if not _allows(permissions, action, "actions", "notActions")),
        *(
            action
            for action in wanted.data_actions
            if not _allows(permissions, action, "dataActions", "notDataActions")
        ),
    ]


def too_much(permissions: Sequence[Mapping[str, Any]]) -> list[str]:
    """List which of TOO_MUCH an application may do."""
    return [action for action in TOO_MUCH if _allows(permissions, action, "actions", "notActions")]


def _allows(permissions: Sequence[Mapping[str, Any]], action: str, yes: str, no: str) -> bool:
    return any(
        _fits(action, permission.get(yes)) and not _fits(action, permission.get(no)) for permission in permissions
    )


def _fits(action: str, patterns: object) -> bool:
    names = patterns if isinstance(patterns, list) else []
    return any(fnmatch.fnmatchcase(action.lower(), str(pattern).lower()) for pattern in names)
