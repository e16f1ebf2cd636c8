"""Which calls a fault hits, and what it may be told."""

import pytest

from clouduploader.sandbox.aws.faults import Fault, Faults


def hit(fault, count, subject=""):
    return [number for number in range(1, count + 1) if fault.applies(fault.action, subject)]


def test_other_calls_are_neither_hit_nor_counted():
    fault = Fault("CreateVolume", nth=2, code="InternalError")
    assert [fault.applies(action) for action in ("CreateVolume", "CreateVpc", "CreateVolume")] == [False, False, True]


def test_probability_is_the_same_for_the_same_seed():
    one, same, other = (hit(Fault("X", probability=0.3, seed=seed), 100) for seed in (1, 1, 2))
    assert one == same != other
    assert 10 < len(one) < 50


def test_rate_lets_a_burst_pass_and_throttles_the_rest():
    fault = Fault("PutSnapshotBlock", rate=0.001, burst=3)
    assert hit(fault, 5, "snap-1") == [4, 5]
    assert hit(fault, 5, "snap-2") == [4, 5]
    assert (fault.code, fault.reason, fault.status) == ("RequestThrottledException", "RESOURCE_LEVEL_THROTTLE", 400)


def test_rate_of_an_account_is_shared():
    fault = Fault("PutSnapshotBlock", rate=0.001, burst=3, by="account", code="ThrottlingException")
    assert hit(fault, 2, "snap-1") + hit(fault, 3, "snap-2") == [2, 3]
    assert fault.code == "ThrottlingException"


@pytest.mark.parametrize(
    ("code", "status"), [("InternalServerException", 500), ("ExpiredTokenException", 403), ("VolumeInUse", 400)]
)
def test_status_belongs_to_the_code(code, status):
    assert Fault("StartSnapshot", code=code).status == status
    assert Fault("StartSnapshot", code=code, status=418).status == 418


@pytest.mark.parametrize("given", [{"stall": "read"}, {"cut_answer": 0.5}, {"by": "account", "rate": 1}])
def test_fault_of_the_ebs_server_is_for_its_actions_only(given):
    Fault("PutSnapshotBlock", **given)
    with pytest.raises(ValueError, match="not for CreateVolume"):
        Fault("CreateVolume", **given)


def test_bad_fault_leaves_those_before():
    faults = Faults()
    faults.replace([{"action": "X", "code": "Y"}])
    with pytest.raises(TypeError):
        faults.replace([{"action": "X", "cod": "Y"}])
    assert len(faults.hits("X")) == 1
