"""Which calls a fault hits."""

import pytest

from clouduploader.sandbox.faults import Fault, Faults


def hit(fault, count, subject=""):
    return [number for number in range(1, count + 1) if fault.hits(fault.action, subject)]


def test_other_calls_are_neither_hit_nor_counted():
    fault = Fault("CreateVolume", nth=2, code="InternalError")
    assert [fault.hits(action) for action in ("CreateVolume", "CreateVpc", "CreateVolume")] == [False, False, True]


@pytest.mark.parametrize(
    ("which", "numbers"),
    [({}, [1, 2, 3, 4, 5, 6]), ({"first": 2}, [1, 2]), ({"after": 4}, [5, 6]), ({"every": 3}, [3, 6])],
)
def test_fault_hits_the_calls_that_it_names(which, numbers):
    assert hit(Fault("X", **which), 6) == numbers


def test_probability_is_the_same_for_the_same_seed():
    one, same, other = (hit(Fault("X", probability=0.3, seed=seed), 100) for seed in (1, 1, 2))
    assert one == same != other
    assert 10 < len(one) < 50


def test_rate_lets_a_burst_of_each_subject_pass():
    fault = Fault("X", rate=0.001, burst=3)
    assert hit(fault, 5, "one") == [4, 5]
    assert hit(fault, 5, "other") == [4, 5]


def test_bad_fault_leaves_those_before():
    faults = Faults(Fault)
    faults.replace([{"action": "X", "code": "Y"}])
    with pytest.raises(TypeError):
        faults.replace([{"action": "X", "cod": "Y"}])
    assert len(faults.hits("X")) == 1
