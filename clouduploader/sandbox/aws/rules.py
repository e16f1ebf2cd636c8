"""The rules of EC2 that moto lacks, and two things in which moto 5.2.5 is wrong.

Sources: the API reference of EC2, the error code list of the EC2 API, the quotas page of
VPC. What an upload can run into is here; the rest of EC2 is moto's.
"""

# ruff: noqa: ANN401  (the signatures are moto's)

import datetime
import time
from collections.abc import Callable
from typing import Any

import moto.ec2.urls
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.responses import EC2Response
from moto.ec2.utils import generic_filter
from moto.kms.responses import KmsResponse

from clouduploader.sandbox.aws import copy_image, defaults, images, instances, sharing
from clouduploader.sandbox.aws.disks import Disks
from clouduploader.sandbox.aws.ebs.snapshots import DirectSnapshot

VPC_QUOTA = 5  # "VPCs per Region", which counts the default VPC

ANSWERS = {
    "copy_image": copy_image.answer_copy_image,
    "deregister_image": images.answer_deregister_image,
    "describe_image_attribute": sharing.answer_describe_image_attribute,
    "describe_regions": defaults.answer_describe_regions,
    "disable_image_block_public_access": defaults.answer_disable_image_block_public_access,
    "disable_image_deprecation": sharing.answer_disable_image_deprecation,
    "disable_snapshot_block_public_access": defaults.answer_disable_snapshot_block_public_access,
    "enable_image_block_public_access": defaults.answer_enable_image_block_public_access,
    "enable_image_deprecation": sharing.answer_enable_image_deprecation,
    "enable_snapshot_block_public_access": defaults.answer_enable_snapshot_block_public_access,
    "get_console_output": instances.answer_get_console_output,
    "get_ebs_default_kms_key_id": defaults.answer_get_ebs_default_kms_key_id,
    "get_image_block_public_access_state": defaults.answer_get_image_block_public_access_state,
    "get_snapshot_block_public_access_state": defaults.answer_get_snapshot_block_public_access_state,
    "modify_ebs_default_kms_key_id": defaults.answer_modify_ebs_default_kms_key_id,
    "modify_image_attribute": sharing.answer_modify_image_attribute,
    "modify_snapshot_attribute": sharing.answer_modify_snapshot_attribute,
    "register_image": images.answer_register_image,
    "reset_ebs_default_kms_key_id": defaults.answer_reset_ebs_default_kms_key_id,
}

KMS_ANSWERS = {"describe_key": defaults.answer_describe_key}


class StrictEC2(EC2Backend):
    """EC2 with the rules that an upload can run into.

    Attributes:
        disks: Where the contents of volumes and snapshots are; set by `install`.
        snapshot_seconds: How long a snapshot stays pending.
        copy_seconds: How long a copy does.
        ready_at: By snapshot, by the monotonic clock.
        on_stop: Told the ids of instances that do not run any longer; set by `install`.
        authorized_keys: By instance the OpenSSH public key it was launched with.
        default_key_arn: The key of EBS that the account has chosen; None for AWS's own.
        image_block: Whether images may be made public, see `defaults`.
        snapshot_block: The same of snapshots.
    """

    disks: Disks
    snapshot_seconds: float = 0
    copy_seconds: float = 0
    on_stop: Callable[[list[str]], None]
    _url_module = moto.ec2.urls  # moto would look for it beside this module

    def __init__(self, region_name: str, account_id: str) -> None:
        self.ready_at: dict[str, float] = {}
        self._failing: set[str] = set()
        self.authorized_keys: dict[str, str] = {}
        self.default_key_arn: str | None = None
        self.image_block = self.snapshot_block = defaults.UNBLOCKED
        super().__init__(region_name, account_id)

    # --- networks

    def create_vpc(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse beyond the quota."""
        if len(self.vpcs) >= VPC_QUOTA:
            raise EC2ClientError("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
        return super().create_vpc(*args, **kwargs)

    def delete_vpc(self, vpc_id: str) -> Any:
        """Refuse while a gateway is attached or a group is left; moto sees only subnets and tables."""
        has_gateway = any(g.vpc and g.vpc.id == vpc_id for g in self.internet_gateways.values())
        has_group = any(group.name != "default" for group in self.groups.get(vpc_id, {}).values())
        if has_gateway or has_group:
            raise _dependency(f"The vpc '{vpc_id}' has dependencies and cannot be deleted.")
        return super().delete_vpc(vpc_id)

    def delete_subnet(self, subnet_id: str) -> Any:
        """Refuse while used; take the association with a route table along, as AWS does."""
        if any(nic.subnet.id == subnet_id for nic in self._used_interfaces()):
            raise _dependency(f"The subnet '{subnet_id}' has dependencies and cannot be deleted.")
        deleted = super().delete_subnet(subnet_id)
        for table in self.route_tables.values():
            for association, target in list(table._associations.items()):
                if target == subnet_id:
                    del table._associations[association]
        return deleted

    def attach_internet_gateway(self, internet_gateway_id: str, vpc_id: str) -> Any:
        """Refuse a second one."""
        if any(gateway.vpc and gateway.vpc.id == vpc_id for gateway in self.internet_gateways.values()):
            raise EC2ClientError("InvalidParameterValue", f"Network {vpc_id} already has an internet gateway attached")
        return super().attach_internet_gateway(internet_gateway_id, vpc_id)

    def detach_internet_gateway(self, internet_gateway_id: str, vpc_id: str) -> None:
        """Refuse while an instance of the VPC has a public address."""
        if any(nic.public_ip and nic.subnet.vpc_id == vpc_id for nic in self._used_interfaces()):
            raise _dependency(
                f"Network {vpc_id} has some mapped public address(es). "
                "Please unmap those public address(es) before detaching the gateway."
            )
        super().detach_internet_gateway(internet_gateway_id, vpc_id)

    def delete_security_group(self, name: str | None = None, group_id: str | None = None) -> None:
        """Refuse while used."""
        group = self.get_security_group_by_name_or_id(group_id or name or "")
        if group and any(group.id in [g.id for g in nic.group_set] for nic in self._used_interfaces()):
            raise _dependency(f"resource {group.id} has a dependent object")
        super().delete_security_group(name, group_id)

    def _used_interfaces(self) -> list[Any]:
        return [
            nic for instance in self.all_instances() if instance.state != "terminated" for nic in instance.nics.values()
        ]

    # --- instances

    def run_instances(
        self, image_id: str, count: int, user_data: Any, security_group_names: list[str], **kwargs: Any
    ) -> Any:
        """Check what is launched, and where."""
        instance_type = kwargs["instance_type"]
        if instance_type not in INSTANCE_TYPES:
            raise EC2ClientError("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
        if image_id not in self.amis:
            raise EC2ClientError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
        self._check_fit(self.amis[image_id], instance_type)
        for interface in kwargs.get("nics") or []:
            self._check_network(interface, kwargs.get("placement"))
        reservation = super().run_instances(image_id, count, user_data, security_group_names, **kwargs)
        pair = self.key_pairs.get(kwargs.get("key_name") or "")
        if pair:
            self.authorized_keys |= {instance.id: pair.public_key for instance in reservation.instances}
        return reservation

    def stop_instances(self, instance_ids: list[str]) -> Any:
        """End connections to them."""
        answer = super().stop_instances(instance_ids)
        StrictEC2.on_stop(instance_ids)
        return answer

    @staticmethod
    def _check_fit(image: Any, instance_type: str) -> None:
        described = INSTANCE_TYPES[instance_type]
        architectures = described["ProcessorInfo"]["SupportedArchitectures"]
        if image.architecture not in architectures:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"The architecture '{', '.join(architectures)}' of the specified instance type does not match "
                f"the architecture '{image.architecture}' of the specified AMI. Specify an instance type and "
                "an AMI that have matching architectures, and try again.",
            )
        if described["NetworkInfo"]["EnaSupport"] == "required" and not getattr(image, "ena_support", False):
            raise EC2ClientError(
                "InvalidParameterCombination",
                "Enhanced networking with the Elastic Network Adapter (ENA) is required for the "
                f"'{instance_type}' instance type. Ensure that you are using an AMI that is enabled for ENA.",
            )

    def _check_network(self, interface: dict[str, Any], zone: str | None) -> None:
        subnet_id = interface.get("SubnetId")
        if not subnet_id:
            return
        subnet = self.get_subnet(subnet_id)
        if zone and zone != subnet.availability_zone:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"The availability zone {zone} does not match that of subnet {subnet_id}.",
            )
        for group_id in interface.get("Groups") or []:
            group = self.get_security_group_from_id(group_id)
            if group is None:
                raise EC2ClientError("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
            if group.vpc_id != subnet.vpc_id:
                raise EC2ClientError(
                    "InvalidParameter",
                    f"Security group {group_id} and subnet {subnet_id} belong to different networks.",
                )

    def terminate_instances(self, instance_ids: list[str]) -> Any:
        """Detach the volumes, as AWS does; moto keeps those attached by hand."""
        answer = super().terminate_instances(instance_ids)
        StrictEC2.on_stop(instance_ids)
        for volume in list(self.volumes.values()):
            if volume.attachment and volume.attachment.instance.id in instance_ids:
                volume.attachment = None
        return answer

    # --- disks

    def attach_volume(
        self, volume_id: str, instance_id: str, device_path: str, delete_on_termination: bool = False
    ) -> Any:
        """Refuse what is attached already, elsewhere, or under a name that is taken."""
        volume, instance = self.get_volume(volume_id), self.get_instance(instance_id)
        if volume.attachment:
            raise EC2ClientError("VolumeInUse", f"{volume_id} is already attached to an instance")
        if instance.state not in ("running", "stopped"):
            raise EC2ClientError("IncorrectState", f"Instance '{instance_id}' is not 'running'.")
        if volume.zone.name != instance.availability_zone:
            raise EC2ClientError(
                "InvalidVolume.ZoneMismatch",
                f"The volume '{volume_id}' is not in the same availability zone as instance '{instance_id}'",
            )
        if device_path in instance.block_device_mapping:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Invalid value '{device_path}' for unixDevice. Attachment point {device_path} is already in use",
            )
        return super().attach_volume(volume_id, instance_id, device_path, delete_on_termination)

    def detach_volume(self, volume_id: str, instance_id: str, device_path: str) -> Any:
        """Find the instance if none is named; moto 5.2.5 crashes then."""
        attachment = self.get_volume(volume_id).attachment
        if attachment is None:
            raise EC2ClientError("IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
        return super().detach_volume(volume_id, instance_id or attachment.instance.id, device_path)

    def create_volume(self, *args: Any, **kwargs: Any) -> Any:
        """Copy the content of its snapshot, which must not be larger."""
        volume = super().create_volume(*args, **kwargs)
        if self.ebs_encryption_by_default and not volume.encrypted:
            volume.encrypted, volume.kms_key_id = True, defaults.encryption_key(self)
        if volume.snapshot_id:
            snapshot = self.get_snapshot(volume.snapshot_id)
            if volume.size < snapshot.volume_size or snapshot.status != "completed":
                del self.volumes[volume.id]
                if snapshot.status != "completed":
                    raise EC2ClientError("IncorrectState", f"Snapshot '{snapshot.id}' is not completed.")
                raise EC2ClientError("InvalidParameterValue", "The volume is smaller than its snapshot.")
            self.disks.link(volume.snapshot_id, volume.id)
        return volume

    def delete_volume(self, volume_id: str) -> Any:
        """Forget the content too."""
        deleted = super().delete_volume(volume_id)
        self.disks.delete(volume_id)
        return deleted

    def create_snapshot(self, volume_id: str, *args: Any, **kwargs: Any) -> Any:
        """Keep the content, and be pending for a while."""
        snapshot = super().create_snapshot(volume_id, *args, **kwargs)
        snapshot.kms_key_id = self.get_volume(volume_id).kms_key_id
        self.disks.link(volume_id, snapshot.id)
        if self.snapshot_seconds:
            snapshot.status = "pending"
            self.ready_at[snapshot.id] = time.monotonic() + self.snapshot_seconds
        return snapshot

    def doom(self, snapshot_id: str) -> None:
        """Let a pending snapshot fail when its time comes."""
        self._failing.add(snapshot_id)

    def advance(self, now: datetime.datetime) -> None:
        """Complete snapshots and images whose time has come.

        Args:
            now: AWS's time.
        """
        for snapshot in self.snapshots.values():
            if isinstance(snapshot, DirectSnapshot):
                snapshot.advance(now)
            elif snapshot.status == "pending" and time.monotonic() >= self.ready_at[snapshot.id]:
                snapshot.status = "error" if snapshot.id in self._failing else "completed"
        for image in self.amis.values():
            if image.state == "pending":
                self._settle_image(image)

    def _settle_image(self, image: Any) -> None:
        states = {self.snapshots[snapshot_id].status for snapshot_id in image.snapshot_ids}
        if "error" in states:
            image.state = "failed"
            image.state_reason = {"Code": "Client.InvalidKmsKey", "Message": "The KMS key can't be used."}
        elif states <= {"completed"}:
            image.state = "available"

    def describe_snapshots(self, snapshot_ids: list[str] | None = None, filters: Any = None) -> Any:
        """Leave out those that are hidden yet; asked for by id, they are not there."""
        for snapshot_id in snapshot_ids or []:
            self._check_visible(snapshot_id)
        found = super().describe_snapshots(snapshot_ids, filters)
        return [snapshot for snapshot in found if not _is_hidden(snapshot)]

    def _check_visible(self, snapshot_id: str) -> None:
        found = self.snapshots.get(snapshot_id)
        if found is None or _is_hidden(found):
            raise EC2ClientError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")

    def delete_snapshot(self, snapshot_id: str) -> Any:
        """Refuse while an AMI uses it, or it is hidden yet."""
        self._check_visible(snapshot_id)
        for image in self.amis.values():
            if snapshot_id in getattr(image, "snapshot_ids", ()):
                raise EC2ClientError(
                    "InvalidSnapshot.InUse",
                    f"The snapshot {snapshot_id} is currently in use by {image.id}",
                )
        deleted = super().delete_snapshot(snapshot_id)
        self.disks.delete(snapshot_id)
        return deleted

    # --- tags

    def create_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        """Check keys and values (EC2 user guide, "Tag restrictions")."""
        for resource_id in resource_ids:
            self._check_exists(resource_id)
            there = {tag["key"] for tag in self.describe_tags({"resource-id": [resource_id]})}
            images.check_tags(tags, there)
        return super().create_tags(resource_ids, tags)

    def _check_exists(self, resource_id: str) -> None:
        if resource_id.startswith("snap-") and resource_id not in self.snapshots:
            raise EC2ClientError("InvalidSnapshot.NotFound", f"The snapshot '{resource_id}' does not exist.")

    # --- images

    def describe_images(
        self, ami_ids: list[str] | None = None, filters: Any = None, exec_users: Any = None, owners: Any = None
    ) -> Any:
        """Refuse if one of several is not there, and filter even then; moto does neither."""
        for image_id in ami_ids or []:
            if image_id not in self.amis and image_id not in self.deleted_amis:
                raise EC2ClientError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
        found = super().describe_images(ami_ids, filters, exec_users, owners)
        return generic_filter(filters, found) if ami_ids else found


def _is_hidden(snapshot: Any) -> bool:
    return isinstance(snapshot, DirectSnapshot) and not snapshot.is_visible


def _dependency(message: str) -> EC2ClientError:
    return EC2ClientError("DependencyViolation", message)


def install(disks: Disks, on_stop: Callable[[list[str]], None]) -> None:
    """Put the rules in place; before moto is used, once in a process.

    Args:
        disks: See StrictEC2.
        on_stop: See StrictEC2.
    """
    StrictEC2.disks = disks
    StrictEC2.on_stop = staticmethod(on_stop)
    ec2_backends.backend = StrictEC2
    # Single methods, because moto's classes for answers can't be replaced as a whole.
    for name, answer in ANSWERS.items():
        setattr(EC2Response, name, answer)
    for name, answer_of_kms in KMS_ANSWERS.items():
        setattr(KmsResponse, name, answer_of_kms)
