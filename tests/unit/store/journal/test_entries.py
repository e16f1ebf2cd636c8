import json

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.store import journal


def key_of(**changes):
    return journal.key_of(**({"target": "ec2", "user": "tom", "filename": "a.raw", "values": {"a": "b"}} | changes))


def test_key_is_that_of_the_first_release():
    assert key_of() == "70917a875c70ec89a39734a01ff042c0"  # of ["clouduploader 1","ec2","tom","a.raw",{"a":"b"}]
    assert journal.is_key(key_of())


def test_key_does_not_depend_on_the_order_of_values():
    assert key_of(values={"a": "b", "c": {"d": "e", "f": "g"}}) == key_of(values={"c": {"f": "g", "d": "e"}, "a": "b"})


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "x"}, {"user": "x"}, {"filename": "x"}, {"values": {}}, {"values": {"a": "c"}},
        {"values": {"a": "b", "c": True}}, {"user": "caf\udce9"}, {"target": "ec2tom", "user": ""},
    ],
)  # fmt: skip
def test_key_is_another_one_for_another_upload(changes):
    assert key_of(**changes) != key_of()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@hypothesis.given(st.text(st.characters()), st.dictionaries(st.text(st.characters()), json_values))
def test_any_upload_has_a_key_that_stays(user, values):
    key = key_of(user=user, values=values)
    assert journal.is_key(key)
    assert key == key_of(user=user, values=json.loads(json.dumps(values)))


@hypothesis.given(st.binary())
def test_any_bytes_are_entries_or_nothing(data):
    assert all(isinstance(entry["what"], str) for entry in journal.parse(data))


def test_time_of_a_sum_grows_with_the_number_of_entries_alone():
    asked = [{"what": "asked", "kind": "snapshot", "region": "r", "token": str(number)} for number in range(20_000)]
    made = [{"what": "made", "kind": "snapshot", "region": "r", "id": str(number)} for number in range(20_000)]
    ends = [{"what": "end", "outcome": "succeeded", "objects": made[:1]}] * 5_000
    state = journal.state_of([*asked, *made, *ends])
    assert (state.asked, len(state.objects), len(state.delivered)) == ((), 19_999, 1)
