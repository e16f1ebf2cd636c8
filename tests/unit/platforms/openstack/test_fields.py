import contextlib

import pytest

from clouduploader.errors import TargetDataError
from clouduploader.platforms.openstack import fields
from clouduploader.plugin.fields import is_allowed

CREDENTIAL = {"application_credential_id": "i", "application_credential_secret": "s"}


def problems(default_cloud="mine", **targetdata):
    return fields.problems({**CREDENTIAL, **targetdata}, default_cloud=default_cloud)


@pytest.mark.parametrize(
    ("targetdata", "problem"),
    [
        ({"application_credential_secret": None}, "application_credential_secret is missing"),
        ({"application_credential_id": None}, "application_credential_id is missing"),
        ({"default_cloud": ""}, "cloud is missing, or auth_url"),
        ({"cloud": "a", "auth_url": "https://a"}, "auth_url and cloud are both given"),
        ({"image_name": "in:a,b"}, "image_name begins with in:"),
        ({"image_name": "cheese \U0001f9c0"}, "image_name has a character"),
        ({"members": ["p"], "visibility": "private"}, "members are given, but visibility is private"),
        ({"tags": [str(number) for number in range(fields.MAX_TAGS - fields.OWN_TAGS + 1)]}, "tags are more than"),
        ({"tags": ["clouduploader:key=1"]}, "tags have one that begins with clouduploader"),
        ({"tags": ["\U0001f9c0"]}, "tags have one that is empty, or has a character"),
        ({"tags": [""]}, "tags have one that is empty"),
        ({"properties": {str(number): "" for number in range(fields.MAX_PROPERTIES)}}, "properties are more than"),
        ({"properties": {"protected": "true"}}, "properties have protected"),
        ({"properties": {"hw_disk_bus": "ide"}}, "properties have hw_disk_bus"),
        ({"properties": {"os_glance_x": "1"}}, "properties have a name that is empty, or begins with os_glance"),
        ({"properties": {"": "1"}}, "properties have a name that is empty"),
        ({"properties": {"a": "x" * 256}}, "properties have a name or value of more than 255"),
        ({"properties": {"a": "\U0001f9c0"}}, "properties have a character"),
    ],
)
def test_problem_is_found(targetdata, problem):
    (found,) = problems(**targetdata)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "targetdata",
    [
        {},
        {"auth_url": "https://keystone"},
        {"members": ["p"], "visibility": "shared"},
        {"tags": ["a"], "properties": {"hw_rng_model": "virtio"}},
        {"application_credential_id": None, "application_credential_secret": None, "default_cloud": ""},
    ],
)
def test_right_target_data_have_no_problem(targetdata):
    assert problems(**targetdata) == []


@pytest.mark.parametrize(
    ("url", "is_right"),
    [
        ("https://a:5000/v3", True),
        ("ftp://a", False),
        ("https://a b", False),
        ("http://a/x?cmd=kill", False),
        ("http://a/x#", False),
    ],
)
def test_url_is_of_http(url, is_right):
    (field,) = (field for field in fields.FIELDS if field.name == "auth_url")
    assert is_allowed(field, url) is is_right


def test_tags_are_what_glance_takes():
    made = fields.tags({"clouduploader:filename": "\U0001f9c0" + "x" * 300}, ["a", "a"])
    assert made[0] == "clouduploader"
    assert made[1].startswith("clouduploader:filename=?x")
    assert len(made[1]) == 255
    assert made[2:] == ["a"]


def test_labels_are_read_from_tags():
    labels = {"clouduploader:key": "0123", "clouduploader:filename": "a=b"}
    assert fields.labels_of([*fields.tags(labels, ["c=d"]), "clouduploader:odd"]) == labels


@pytest.mark.parametrize(
    ("url", "allowed", "is_by_hand", "words"),
    [
        ("https://any.example.com/v3", "*", False, None),
        ("https://any.example.com/v3", "mine.example.com", False, "does not upload to any.example.com"),
        ("https://any.example.com/v3", "", False, "does not upload to any.example.com"),
        ("https://any.example.com/v3", "", True, None),
        ("https://any.example.com:5000/v3", "any.example.com", False, None),
        ("https://Any.Example.com:5000/v3", "any.example.com:5000", False, None),
        ("https://any.example.com:5000/v3", "any.example.com:35357", False, "does not upload to"),
        ("https://any.example.com@evil.example.com/v3", "any.example.com", False, "is no URL"),
        (r"https://evil.example.com\@any.example.com/v3", "any.example.com", False, "is no URL"),  # requests asks evil
        (r"http://evil.example.com\@localhost/v3", "*", True, "is no URL"),
        ("https://any.example.com?x=/v3", "any.example.com", False, "is no URL"),
        ("https://Any.example.com:5000", "any.example.com", False, None),
        ("https://any.example.com:5000/", "any.example.com:5000", False, None),
        ("http://any.example.com/v3", "*", False, "others could read the secret"),
        ("http://any.example.com/v3", "*", True, "others could read the secret"),
        ("http://any.example.com/v3", "any.example.com", False, None),
        ("http://127.0.0.1:5000/v3", "*", True, None),
        ("http://[::1]:5000/v3", "*", True, None),
        ("http://127.0.0.1:5452/cloudupload/1", "*", False, "127.0.0.1 is asked by http"),
        ("http://localhost:5000/v3", "localhost:5000", False, None),
        ("http://169.254.169.254/v3", "", False, "does not upload to 169.254.169.254"),
    ],
)
def test_secret_goes_to_hosts_that_are_allowed(url, allowed, is_by_hand, words):
    raised = pytest.raises(TargetDataError, match=words) if words else contextlib.nullcontext()
    with raised:
        fields.check_url(url, allowed.split(), is_by_hand=is_by_hand)


@pytest.mark.parametrize(
    ("url", "is_one"),
    [("https://a:9292/image", True), ("http://a/image", False), ("https://a/cloudupload/1?cmd=kill#", False)],
)
def test_catalog_leads_to_no_url_that_hides_what_follows(url, is_one):
    assert fields.is_of_https(url) is is_one
