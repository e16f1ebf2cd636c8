"""An EC2 of several regions for tests of copies: real clients of boto3, whose calls never leave the process.

botocore checks the parameters against Amazon's model, and makes of refusals what it makes of real ones.
"""

import datetime
import itertools
import threading
import types

import botocore.exceptions
import botocore.session

from clouduploader.platforms.ec2 import boto
from clouduploader.platforms.ec2.sigv4 import AccessKeys


class Refused(Exception):
    """What EC2 answers instead."""

    def __init__(self, code, message="No.", status=400, retries=0):
        super().__init__(code)
        self.code, self.message, self.status, self.retries = code, message, status, retries


class Lost(Exception):
    """The request is done, and the answer never comes, or says something else."""

    def __init__(self, answer=None):
        super().__init__()
        self.answer = answer


class Cloud:
    """All regions of one account.

    Attributes:
        images: By region and id, as DescribeImages has them, with `looks`: how often a copy is pending yet.
        snapshots: By region and id: the tags.
        calls: What was called: region, operation and parameters.
        looks_pending: How often a new copy is seen pending before it is complete.
        outcome: What becomes of new copies, by region; "available" where nothing else is said.
        faults: By region and operation, what to raise instead, or Lost to raise after it; each serves once
            unless its attribute `for_ever` is set.
        permissions: By region, as they were added.
        grants: To create volumes, by region and snapshot, as they were added.
        deprecations: By region.
        encrypted_by_default: Regions in which all new snapshots are encrypted.
        on_call: Called with region and operation before each answer.
    """

    def __init__(self):
        self.images = {}
        self.snapshots = {}
        self.calls = []
        self.looks_pending = 2
        self.outcome = {}
        self.faults = {}
        self.permissions = {}
        self.grants = {}
        self.deprecations = {}
        self.encrypted_by_default = set()
        self.on_call = lambda _region, _operation: None
        self._tokens = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    def add(self, region, name, tags, *, state="available", is_encrypted=False, looks=0):
        """Put an image there; returns its id."""
        number = next(self._numbers)
        image_id, snapshot_id = f"ami-{number:017x}", f"snap-{number:017x}"
        self.snapshots[region, snapshot_id] = dict(tags)
        self.images[region, image_id] = {
            "ImageId": image_id,
            "Name": name,
            "Description": "words",
            "Architecture": "x86_64",
            "EnaSupport": True,
            "SriovNetSupport": "simple",
            "ImdsSupport": "v2.0",
            "RootDeviceName": "/dev/sda1",
            "State": state,
            "looks": looks,
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            "BlockDeviceMappings": [
                {
                    "DeviceName": "/dev/sda1",
                    "Ebs": {"SnapshotId": snapshot_id, "Encrypted": is_encrypted, "VolumeSize": 10},
                }
            ],
        }
        return image_id

    def called(self, operation, region=None):
        """The parameters of the calls of an operation."""
        return [given for place, name, given in self.calls if name == operation and (region is None or place == region)]

    def left(self, region):
        """The ids of what there is in a region."""
        return sorted(thing_id for place, thing_id in itertools.chain(self.images, self.snapshots) if place == region)

    def client(self, region, reporter):
        """A client of EC2."""
        made = boto.client(
            "ec2",
            region=region,
            keys=AccessKeys("AKIA", "secret", None, None),
            session=botocore.session.Session(),
            reporter=reporter,
        )
        events = made.meta.events
        events.register("provide-client-params.ec2", lambda params, context, **_rest: context.update(given=params))
        events.register_last(  # behind those of `api`
            "before-call", lambda model, context, **_rest: self._answer(region, model.name, context["given"])
        )
        return made

    def _answer(self, region, operation, given):
        with self._lock:
            self.calls.append((region, operation, given))
        self.on_call(region, operation)
        with self._lock:
            fault = self.faults.get((region, operation))
            if fault and not getattr(fault, "for_ever", False):
                del self.faults[region, operation]
            try:
                if fault and not isinstance(fault, Lost):
                    raise fault
                parsed = getattr(self, f"_{operation}")(region, given)
                if fault and fault.answer:
                    raise fault.answer
            except Refused as exc:
                error = {"Code": exc.code, "Message": exc.message}
                metadata = {"HTTPStatusCode": exc.status, "RetryAttempts": exc.retries}
                return self._http(exc.status), {"Error": error, "ResponseMetadata": metadata}
            if fault:
                raise botocore.exceptions.ReadTimeoutError(endpoint_url=f"https://ec2.{region}.test")
            return self._http(200), {**parsed, "ResponseMetadata": {"HTTPStatusCode": 200}}

    def _http(self, status):
        return types.SimpleNamespace(status_code=status)

    def _DescribeImages(self, region, given):
        known = [image for (place, _), image in self.images.items() if place == region]
        if "ImageIds" in given:
            found = [image for image in known if image["ImageId"] in given["ImageIds"]]
            if not found:
                raise Refused("InvalidAMIID.NotFound", "There is no such image")
        else:
            found = [image for image in known if all(self._fits(image, rule) for rule in given["Filters"])]
        for image in found:
            if "ImageIds" in given and image["State"] == "pending":
                self._age(region, image)
        return {"Images": [{key: value for key, value in image.items() if key != "looks"} for image in found]}

    def _age(self, region, image):
        image["looks"] -= 1
        if image["looks"] < 0:
            image["State"] = self.outcome.get(region, "available")
            if image["State"] == "failed":
                image["StateReason"] = {"Code": "Client.Error", "Message": "The key is disabled."}

    def _fits(self, image, rule):
        if rule["Name"] == "name":
            return image["Name"] in rule["Values"]
        key = rule["Name"].removeprefix("tag:")
        return any(tag["Key"] == key and tag["Value"] in rule["Values"] for tag in image["Tags"])

    def _CopyImage(self, region, given):
        token = (region, given["ClientToken"])
        if token in self._tokens:
            return {"ImageId": self._tokens[token]}
        tags = {
            entry["ResourceType"]: {tag["Key"]: tag["Value"] for tag in entry["Tags"]}
            for entry in given["TagSpecifications"]
        }
        assert tags["image"] == tags["snapshot"]
        source = self.images[given["SourceRegion"], given["SourceImageId"]]
        is_encrypted = given.get("Encrypted") or source["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]
        image_id = self.add(
            region,
            given["Name"],
            tags["image"],
            state="pending",
            is_encrypted=bool(is_encrypted or region in self.encrypted_by_default),
            looks=self.looks_pending,
        )
        self._tokens[token] = image_id
        return {"ImageId": image_id}

    def _DescribeSnapshots(self, region, given):
        (rule,) = given["Filters"]
        key = rule["Name"].removeprefix("tag:")
        found = [
            item
            for (place, item), tags in self.snapshots.items()
            if place == region and tags.get(key) in rule["Values"]
        ]
        return {"Snapshots": [{"SnapshotId": item, "State": self._snapshot_state(region, item)} for item in found]}

    def _snapshot_state(self, region, snapshot_id):
        for (place, _), image in self.images.items():
            if place == region and image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == snapshot_id:
                return {"pending": "pending", "failed": "error"}.get(image["State"], "completed")
        return "completed"

    def _DeregisterImage(self, region, given):
        if (region, given["ImageId"]) not in self.images:
            raise Refused("InvalidAMIID.Unavailable", "It is gone")
        del self.images[region, given["ImageId"]]
        return {}

    def _DeleteSnapshot(self, region, given):
        item = given["SnapshotId"]
        for (place, _), image in self.images.items():
            if place == region and item == image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]:
                raise Refused("InvalidSnapshot.InUse", "An image needs it")
        if (region, item) not in self.snapshots:
            raise Refused("InvalidSnapshot.NotFound", "It is gone")
        del self.snapshots[region, item]
        return {}

    def _ModifyImageAttribute(self, region, given):
        image = self.images[region, given["ImageId"]]
        (attribute,) = given.keys() - {"ImageId"}  # "You can specify only one attribute at a time"
        match attribute:
            case "LaunchPermission":
                self.permissions.setdefault(region, []).extend(given[attribute]["Add"])
            case "Description":
                image[attribute] = given[attribute]["Value"]
            case "ImdsSupport":
                assert given[attribute]["Value"] == "v2.0"
                image[attribute] = "v2.0"
        return {}

    def _ModifySnapshotAttribute(self, region, given):
        assert given["Attribute"] == "createVolumePermission"
        assert (region, given["SnapshotId"]) in self.snapshots
        added = given["CreateVolumePermission"]["Add"]
        assert len(added) <= 500
        self.grants.setdefault((region, given["SnapshotId"]), []).extend(added)
        return {}

    def _CreateTags(self, region, given):
        new = {tag["Key"]: tag["Value"] for tag in given["Tags"]}
        for item in given["Resources"]:
            if item.startswith("snap-"):
                self.snapshots[region, item] |= new
            else:
                image = self.images[region, item]
                kept = [tag for tag in image["Tags"] if tag["Key"] not in new]
                image["Tags"] = kept + given["Tags"]
        return {}

    def _EnableImageDeprecation(self, region, given):
        assert isinstance(given["DeprecateAt"], datetime.datetime)
        self.deprecations[region] = given["DeprecateAt"]
        return {}


class Account:
    """The way into that account.

    Args:
        cloud: See Cloud.
        reporter: Told of each call.
        home: The region of clients for which none is named.
    """

    keys = staticmethod(lambda: None)

    def __init__(self, cloud, reporter, home):
        self.region = home
        self._cloud, self._reporter = cloud, reporter
        self._clients = {}
        self._lock = threading.Lock()

    def ec2(self, region=None):
        region = region or self.region
        with self._lock:
            if region not in self._clients:
                self._clients[region] = self._cloud.client(region, self._reporter)
            return self._clients[region]
