"""What a fault of AWS may be told, and what follows from it."""

import pytest

from clouduploader.sandbox.aws.faults import AwsFault


def hit(fault, count, subject):
    return [number for number in range(1, count + 1) if fault.hits(fault.action, subject)]


def test_rate_of_a_snapshot_throttles_it_as_amazon_does():
    fault = AwsFault("PutSnapshotBlock", rate=0.001, burst=3)
    assert hit(fault, 5, "snap-1") == [4, 5]
    assert hit(fault, 5, "snap-2") == [4, 5]
    assert (fault.code, fault.reason, fault.status) == ("RequestThrottledException", "RESOURCE_LEVEL_THROTTLE", 400)


def test_rate_of_an_account_is_shared():
    fault = AwsFault("PutSnapshotBlock", rate=0.001, burst=3, by="account", code="ThrottlingException")
    assert hit(fault, 2, "snap-1") + hit(fault, 3, "snap-2") == [2, 3]
    assert fault.code == "ThrottlingException"


@pytest.mark.parametrize(
    ("code", "status"), [("InternalServerException", 500), ("ExpiredTokenException", 403), ("VolumeInUse", 400)]
)
def test_status_belongs_to_the_code(code, status):
    assert AwsFault("StartSnapshot", code=code).status == status
    assert AwsFault("StartSnapshot", code=code, status=418).status == 418


@pytest.mark.parametrize("given", [{"stall": "read"}, {"cut_answer": 0.5}, {"by": "account", "rate": 1}])
def test_fault_of_the_ebs_server_is_for_its_actions_only(given):
    AwsFault("PutSnapshotBlock", **given)
    with pytest.raises(ValueError, match="not for CreateVolume"):
        AwsFault("CreateVolume", **given)
