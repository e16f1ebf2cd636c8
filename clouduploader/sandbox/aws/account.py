"""The account: the users, role and things in it at the start, and what uploads have left in it.

Uses moto's backends in this process, so no SDK and no request is needed. Every access to them is
under `SandboxAccount.lock`: moto itself is not safe with threads.
"""

import dataclasses
import datetime
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from moto.core.base_backend import BackendDict
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance
from moto.iam.models import IAMBackend, iam_backends
from moto.sts.models import STSBackend, sts_backends

from clouduploader.sandbox.aws import identity, images, keys, network
from clouduploader.sandbox.aws.ebs.snapshots import DirectSnapshot
from clouduploader.sandbox.aws.layout import REGIONS
from clouduploader.sandbox.aws.policies import Rights, check, listed
from clouduploader.util.frozen import frozen

ACCOUNT_ID = str(DEFAULT_ACCOUNT_ID)
ROLE_NAME = "obs-upload"
ROLE_ARN = f"arn:aws:iam::{ACCOUNT_ID}:role/{ROLE_NAME}"
EXTERNAL_ID = "sandboxExternalId0000001"  # 24 base58 characters, as OBS makes them
HELPER_USER = "ec2-user"
VPC_CIDR = "172.20.0.0/16"
SUBNET_CIDR = "172.20.1.0/24"
HELPER_GIB = 8
RIGHTS = ("ec2:*", "ebs:*", "kms:*")


@frozen()
class AttachedDisk:
    """A disk as the kernel of an instance sees it.

    Attributes:
        name: In /dev.
        size_gib: See name.
        volume_id: See name.
        is_root: Whether the instance booted from it.
    """

    name: str
    size_gib: int
    volume_id: str
    is_root: bool


@frozen()
class SandboxIdentity:
    """The owner of an access key.

    Attributes:
        arn: Of the user, or of the role's session.
        secret: The secret access key.
        token: The session token; None for a user.
        expires: When the key ends; None for a user.
        rights: What IAM allows.
    """

    arn: str
    secret: str = dataclasses.field(repr=False)
    token: str | None = dataclasses.field(repr=False)
    expires: datetime.datetime | None
    rights: Rights


def policy(*, actions: str | Sequence[str], resource: str = "*") -> str:
    """Make the policy document that allows these actions."""
    statement = {"Effect": "Allow", "Action": actions, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


class SandboxAccount:
    """The one account of the sandbox.

    Args:
        regions: Those that get a helper AMI; the first also a VPC with a subnet.
    """

    def __init__(self, regions: tuple[str, ...]) -> None:
        self.lock = threading.RLock()
        self.auditor_key_id = ""
        self._regions = regions
        self._own_ids: frozenset[str] = frozenset()

    @property
    def _iam(self) -> IAMBackend:
        backend: IAMBackend = iam_backends[ACCOUNT_ID]["aws"]
        return backend

    @property
    def _sts(self) -> STSBackend:
        backend: STSBackend = sts_backends[ACCOUNT_ID]["aws"]
        return backend

    def _used_regions(self) -> Iterator[tuple[str, Any]]:
        yield from list(ec2_backends[ACCOUNT_ID].items())

    def prepare(self) -> dict[str, Any]:
        """Forget everything, and create what belongs to the sandbox.

        Returns:
            What sandbox.json says about the account.
        """
        with self.lock:
            BackendDict.reset()
            obs = self._add_user("obs", policy(actions="sts:AssumeRole"))
            auditor = self._add_user("auditor", policy(actions="*"))
            self.auditor_key_id = auditor["access_key_id"]
            self._add_role()
            helper_amis = {region: self._add_helper_ami(region) for region in self._regions}
            region = self._regions[0]
            ec2 = ec2_backends[ACCOUNT_ID][region]
            vpc = ec2.create_vpc(VPC_CIDR)
            subnet = ec2.create_subnet(vpc.id, SUBNET_CIDR, availability_zone=f"{region}a")
            self._connect(ec2, vpc.id)
            self._own_ids = frozenset(entry["id"] for group in self._everything().values() for entry in group)
        return {
            "account_id": ACCOUNT_ID,
            "regions": list(self._regions),
            "region": region,
            "role_arn": ROLE_ARN,
            "role_name": ROLE_NAME,
            "external_id": EXTERNAL_ID,
            "vpc_id": vpc.id,
            "subnet_id": subnet.id,
            "helper_amis": helper_amis,
            "kms_keys": {region: keys.arn(region, keys.CUSTOMER_ALIAS) for region in REGIONS},
            "obs": obs,
            "auditor": auditor,
        }

    def _add_user(self, name: str, policy_document: str) -> dict[str, str]:
        self._iam.create_user("us-east-1", name)
        self._iam.put_user_policy(name, "rights", policy_document)
        key = self._iam.create_access_key(name)
        return {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}

    def _add_role(self) -> None:
        statement = {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT_ID}:user/obs"},
            "Condition": {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}},
        }
        self._iam.create_role(
            role_name=ROLE_NAME,
            assume_role_policy_document=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
            path="/",
            permissions_boundary=None,
            description="The role of a customer whose images are uploaded",
            tags=[],
            max_session_duration="3600",  # what IAM gives a role if nothing is said
        )
        self.set_role_policy(None)

    def set_role_policy(self, documents: list[dict[str, Any]] | dict[str, Any] | None) -> None:
        """Give the role exactly these rights: those of one policy, or of several; None for RIGHTS."""
        with self.lock:
            given = [policy(actions=RIGHTS)] if documents is None else [json.dumps(one) for one in listed(documents)]
            for text in given:
                check(text)
            for name in self._iam.list_role_policies(ROLE_NAME):
                self._iam.delete_role_policy(ROLE_NAME, name)
            for number, text in enumerate(given):
                self._iam.put_role_policy(ROLE_NAME, f"upload-{number}", text)

    @staticmethod
    def _add_helper_ami(region: str) -> str:
        return images.register_helper(ec2_backends[ACCOUNT_ID][region], HELPER_GIB)

    @staticmethod
    def _connect(ec2: EC2Backend, vpc_id: str) -> None:
        gateway = ec2.create_internet_gateway()
        ec2.attach_internet_gateway(gateway.id, vpc_id)
        (main,) = [table for table in ec2.route_tables.values() if table.vpc_id == vpc_id]
        ec2.create_route(main.id, network.EVERYWHERE, gateway_id=gateway.id)

    def advance(self, now: datetime.datetime) -> None:
        """Change states whose time has come: moto does not do that by itself.

        Args:
            now: AWS's time.
        """
        with self.lock:
            for _, ec2 in self._used_regions():
                ec2.advance(now)

    def expire(self) -> None:
        """Let all temporary credentials have ended a second ago."""
        with self.lock:
            past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
            for role in self._sts.assumed_roles:
                role.expiration = past

    def expiry(self, access_key_id: str) -> datetime.datetime | None:
        """Return when temporary credentials end; None for others."""
        with self.lock:
            role = self._sts.get_assumed_role_from_access_key(access_key_id)
        if role is None:
            return None
        # moto's own times are naive and in UTC
        return role.expiration.replace(tzinfo=datetime.UTC)

    def expire_snapshots(self, *, is_gone: bool) -> None:
        """Cancel all snapshots that wait for blocks.

        Args:
            is_gone: Whether they vanish; otherwise they are there, in the state error.
        """
        with self.lock:
            for snapshot in self._direct_snapshots():
                snapshot.expire()
                if is_gone and snapshot.status == "error":
                    snapshot.ec2_backend.delete_snapshot(snapshot.id)

    def direct_snapshots(self) -> dict[str, dict[str, Any]]:
        """Return the control channel's report of all snapshots that StartSnapshot began; see the package."""
        with self.lock:
            return {snapshot.id: snapshot.report() for snapshot in self._direct_snapshots()}

    def _direct_snapshots(self) -> list[DirectSnapshot]:
        return [
            snapshot
            for _, ec2 in self._used_regions()
            for snapshot in ec2.snapshots.values()
            if isinstance(snapshot, DirectSnapshot)
        ]

    def written_blocks(self, snapshot_id: str) -> list[int] | None:
        """List the blocks of a snapshot that were written; None if that is not known."""
        with self.lock:
            for _, ec2 in self._used_regions():
                if snapshot_id in ec2.snapshots:
                    written = getattr(ec2.snapshots[snapshot_id], "written", None)
                    return None if written is None else sorted(written)
        raise KeyError(snapshot_id)

    def identity(self, access_key_id: str) -> SandboxIdentity | None:
        """Find the owner of an access key; None if there is none."""
        with self.lock:
            session = self._sts.get_assumed_role_from_access_key(access_key_id)
            if session is not None:
                role = self._iam.get_role_by_arn(session.role_arn)
                return SandboxIdentity(
                    arn=f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/{role.name}/{session.session_name}",
                    secret=session.secret_access_key,
                    token=session.session_token,
                    expires=self.expiry(access_key_id),
                    rights=identity.rights_of(ACCOUNT_ID, access_key_id),
                )
            for user in self._iam.users.values():
                for key in user.access_keys:
                    if key.access_key_id == access_key_id:
                        rights = identity.rights_of(ACCOUNT_ID, access_key_id)
                        return SandboxIdentity(user.arn, key.secret_access_key, None, None, rights)
        return None

    def ssh_at(self, address: str) -> Instance | None:
        """Find the running instance of this address, public or private, if ssh can reach it."""
        with self.lock:
            for _, ec2 in self._used_regions():
                for instance in ec2.all_running_instances():
                    if address in (instance.public_ip, instance.private_ip):
                        return instance if network.accepts_ssh(instance, address) else None
        return None

    def public_key(self, instance: Instance) -> str | None:
        """Return the OpenSSH public key that an instance was launched with, deleted from EC2 or not."""
        keys: dict[str, str] = instance.ec2_backend.authorized_keys
        return keys.get(instance.id)

    def disks(self, instance: Instance) -> list[AttachedDisk]:
        """List the disks of an instance as its kernel does: NVMe names on Nitro types."""
        with self.lock:
            devices = sorted(instance.get_block_device_mapping)
            is_nitro = INSTANCE_TYPES[instance.instance_type].get("Hypervisor") == "nitro"
            return [
                AttachedDisk(
                    name=f"nvme{number}n1" if is_nitro else _xen_name(device),
                    size_gib=instance.ec2_backend.get_volume(block.volume_id).size,
                    volume_id=block.volume_id,
                    is_root=device == instance.root_device_name,
                )
                for number, (device, block) in enumerate(devices)
            ]

    def contents(self, now: datetime.datetime) -> dict[str, list[dict[str, Any]]]:
        """List what is in the account and was not created by the sandbox.

        Args:
            now: AWS's time.
        """
        with self.lock:
            self.advance(now)
            return {
                kind: [entry for entry in entries if entry["id"] not in self._own_ids]
                for kind, entries in self._everything().items()
            }

    def _everything(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for region, ec2 in self._used_regions():
            for kind, entries in _contents(ec2).items():
                found.setdefault(kind, []).extend({"region": region} | entry for entry in entries)
        return found


def _xen_name(device: str) -> str:
    # /dev/sda1 is the partition that Xen types boot from; its disk is xvda.
    return device.removeprefix("/dev/").replace("sd", "xvd", 1).rstrip("0123456789")


def _contents(ec2: EC2Backend) -> dict[str, list[dict[str, Any]]]:
    """Return what is in a region, without what every region has from the start."""
    default_vpc_ids = {vpc.id for vpc in ec2.vpcs.values() if vpc.is_default}
    subnets = [subnet for by_id in ec2.subnets.values() for subnet in by_id.values()]
    groups = [group for by_id in ec2.groups.values() for group in by_id.values()]
    return {
        "instances": [
            {"id": instance.id, "state": instance.state, "type": instance.instance_type}
            for instance in ec2.all_instances()
            if instance.state != "terminated"
        ],
        "volumes": [
            {"id": volume.id, "state": volume.status, "size_gib": volume.size} for volume in ec2.volumes.values()
        ],
        "key_pairs": [{"id": pair.id, "name": name} for name, pair in ec2.key_pairs.items()],
        "security_groups": [
            {"id": group.id, "name": group.name, "vpc_id": group.vpc_id} for group in groups if group.name != "default"
        ],
        "vpcs": [{"id": vpc.id} for vpc in ec2.vpcs.values() if not vpc.is_default],
        "subnets": [
            {"id": subnet.id, "vpc_id": subnet.vpc_id} for subnet in subnets if subnet.vpc_id not in default_vpc_ids
        ],
        "gateways": [
            {"id": gateway.id, "vpc_id": gateway.vpc.id if gateway.vpc else None}
            for gateway in ec2.internet_gateways.values()
        ],
        "route_tables": [
            {"id": table.id, "vpc_id": table.vpc_id}
            for table in ec2.route_tables.values()
            if not table.main_association_id
        ],
        "snapshots": [
            {
                "id": snapshot.id,
                "state": snapshot.status,
                "size_gib": snapshot.volume_size,
                "description": snapshot.description,
                "encrypted": snapshot.encrypted,
                "kms_key_id": snapshot.kms_key_id,
                "tags": {tag["key"]: tag["value"] for tag in snapshot.get_tags()},
            }
            for snapshot in ec2.snapshots.values()
        ],
        "images": [_image(image) for image in ec2.amis.values()],
    }


def _image(image: Ami) -> dict[str, Any]:
    attributes = (
        "name description state architecture virtualization_type root_device_name ena_support boot_mode "
        "imds_support tpm_support sriov_net_support block_device_mappings uefi_data deprecation_time launch_permissions"
    )
    return {
        "id": image.id,
        **{name: getattr(image, name, None) for name in attributes.split()},
        "tags": {tag["key"]: tag["value"] for tag in image.get_tags()},
    }
