import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.platforms.gce import fields, labels
from clouduploader.plugin.fields import is_allowed


def field(name):
    return next(one for one in fields.FIELDS if one.name == name)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("image_name", ["a", "my-image-1"], ["My", "1a", "a-", "a_b", "a" * 64]),
        ("bucket", ["abc", "a.b_c-d"], ["a", "Ab", "-ab", "a/b"]),
        ("project", ["my-project", "123456", "example.com:my-project"], ["My", "x", "a/b"]),
        ("storage_location", ["eu", "europe-west1", "us"], ["EU", "a b"]),
        ("share", [["user:ann@example.com"], ["allAuthenticatedUsers", "domain:example.com"]], [["ann"], ["allUsers"]]),
        ("guest_os_features", [["GVNIC"], []], [["gvnic"], ["SECURE_BOOT"]]),
    ],
)
def test_values_are_those_that_google_takes(name, good, bad):
    assert [value for value in good if not is_allowed(field(name), value)] == []
    assert [value for value in bad if is_allowed(field(name), value)] == []


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"deprecate_older": "OBSOLETE"}, "deprecate_older is given, but no family"),
        ({"labels": {"Team": "x"}}, "labels have a name"),
        ({"labels": {"team": "X"}}, "labels have a value"),
        ({"labels": {"team": "x" * 64}}, "labels have a value"),
        ({"labels": {"clouduploader-x": ""}}, "which is for clouduploader's own"),
        ({"labels": {f"l{number}": "" for number in range(60)}}, "labels are 60"),
    ],
)
def test_rules_between_fields_are_checked(data, problem):
    assert [line for line in fields.problems(data) if problem in line] != []


def test_what_is_right_has_no_problems():
    assert (
        fields.problems({"labels": {"team": "a-b_c1", "empty": ""}, "family": "f", "deprecate_older": "OBSOLETE"}) == []
    )


@hypothesis.given(st.dictionaries(st.sampled_from(["clouduploader:key", "clouduploader:filename"]), st.text()))
def test_labels_of_an_upload_are_such_as_google_takes(ours):
    for name, value in labels.of_upload(ours).items():
        assert fields._fits(labels.KEY_PATTERN, name)
        assert fields._fits(labels.VALUE_PATTERN, value)


def test_labels_come_back_as_ours():
    ours = {"clouduploader:key": "0123456789abcdef", "clouduploader:job": "7"}
    assert labels.as_ours({**labels.of_upload(ours), "team": "x"}) == ours


def test_digests_differ_and_fit_a_label():
    found = {labels.digest(f"{number:064x}") for number in range(100)}
    assert len(found) == 100
    assert all(fields._fits(labels.VALUE_PATTERN, one) for one in found)
