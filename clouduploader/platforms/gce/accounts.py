"""The users' accounts: service accounts with a role of just the rights that uploads need, and their keys.

Source: IAM, "Create custom roles" and "Create and delete service account keys".
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence

from clouduploader.errors import ClouduploaderError, DataError, TransientError
from clouduploader.platforms.gce import auth, rights
from clouduploader.plugin import AccountGuide, Accounts, Context, Finding, JsonValue, Level, Reporter, Verification

NAME = "clouduploader"
"""What the commands call the service account, and the image roles; the user may choose others."""
BUCKET_ROLE = f"{NAME}Archives"
PROJECT_ROLE = f"{NAME}Images"
KEY_FILE = f"{NAME}-key.json"
APIS = ("compute", "storage", "cloudresourcemanager", "iam")
BUCKET_OPTIONS = (
    "--uniform-bucket-level-access",
    "--soft-delete-duration",
    "0",
)  # archives are charged for a week else
DEFAULTS = {"project": "PROJECT", "bucket": "BUCKET"}
"""What stands in the guide for what is not known yet."""

Role = dict[str, JsonValue]


class ServiceAccounts(Accounts):
    """See `clouduploader.plugin.Accounts`.

    Args:
        make_context: Makes a context of an account's values.
    """

    description = (
        "A user's account is a service account in a project of Google Cloud, with a bucket. `account show` tells the "
        "user how to make it with two roles of its own; its key is entered by `account set USER credentials < FILE`, "
        "and kept encrypted, and the bucket by `account set USER bucket BUCKET`."
    )
    extras: Mapping[str, str] = {
        "deprecate": "deprecate the older images of a family",
        "share": "let others use the images",
    }
    scripts: Mapping[str, str] = {"commands": "commands for `gcloud`, whose last one writes the key into a file"}

    def __init__(self, make_context: Callable[[Mapping[str, str], Reporter], Context]) -> None:
        self._make_context = make_context

    def guide(self, values: Mapping[str, str], *, extras: Sequence[str], reporter: Reporter) -> AccountGuide:
        """Say which roles and service account the user has to make; asks nothing of the network."""
        known = {**DEFAULTS, **values}
        email = f"{NAME}@{known['project']}.iam.gserviceaccount.com"
        if values.get("credentials"):
            info = auth.read_key(values["credentials"])
            email, known["project"] = info["client_email"], values.get("project") or info.get("project_id", "PROJECT")
        more = [one for extra in extras for one in rights.EXTRAS[extra]]
        roles = {
            "archives": _role("Archives of disk images, in a bucket", rights.ON_BUCKET),
            "images": _role("Disk images", sorted([*rights.ON_PROJECT, *more])),
        }
        return AccountGuide(
            facts={"service_account": email, "project": known["project"], "bucket": known["bucket"]},
            policies={**roles},
            scripts={"commands": commands(roles, email=email, project=known["project"], bucket=known["bucket"])},
        )

    def verify(self, values: Mapping[str, str], *, reporter: Reporter) -> Verification:
        """Get a token, and ask for the rights: those that are needed, and some that are too many."""
        for name in ("credentials", "bucket"):
            if not values.get(name):
                raise DataError(
                    f"the account has no {name} yet",
                    hint=f"Enter it with `clouduploader account set USER {name} --target gce`.",
                )
        ctx = self._make_context(values, reporter)
        try:
            findings = [*rights.compared(ctx)]
        except TransientError:
            raise
        except ClouduploaderError as exc:
            findings = [Finding(Level.FAILURE, "Google", exc.message, exc.hint)]
        is_usable = all(finding.level is Level.OK for finding in findings)
        if is_usable:
            findings += rights.too_wide(ctx)
        return Verification(tuple(findings), is_usable=is_usable, is_open=False)


def _role(title: str, permissions: Sequence[str]) -> Role:
    """Make a custom role as `gcloud iam roles create --file` takes it."""
    return {"title": f"clouduploader: {title}", "stage": "GA", "includedPermissions": list(permissions)}


def commands(roles: Mapping[str, Role], *, email: str, project: str, bucket: str) -> str:
    """Make commands of gcloud for a shell, a line each; the last one writes the key."""
    named = {"archives": BUCKET_ROLE, "images": PROJECT_ROLE}

    def granted(name: str) -> list[str]:
        return ["--member", f"serviceAccount:{email}", "--role", f"projects/{project}/roles/{named[name]}"]

    lines = [
        ["services", "enable", *(f"{api}.googleapis.com" for api in APIS)],
        *(
            ["iam", "roles", "create", named[name], "--title", str(one["title"]), "--permissions", _permissions(one)]
            for name, one in roles.items()
        ),
        ["iam", "service-accounts", "create", email.partition("@")[0]],
        ["storage", "buckets", "create", f"gs://{bucket}", *BUCKET_OPTIONS],
        ["storage", "buckets", "add-iam-policy-binding", f"gs://{bucket}", *granted("archives")],
        ["projects", "add-iam-policy-binding", project, *granted("images"), "--condition", "None"],
        ["iam", "service-accounts", "keys", "create", KEY_FILE, "--iam-account", email],
    ]
    return "\n".join(shlex.join(["gcloud", "--project", project, *line]) for line in lines)


def _permissions(role: Role) -> str:
    found = role["includedPermissions"]
    return ",".join(map(str, found)) if isinstance(found, list) else json.dumps(found)
