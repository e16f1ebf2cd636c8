import pytest

from clouduploader.platforms.azure import fields

APPLICATION = {"application_id": "0" * 36, "application_key": "a secret", "tenant": "example.com"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, None),
        (APPLICATION, None),
        ({**APPLICATION, "tenant": "", "subscription": "example.com"}, None),
        ({"application_key": "a secret"}, "application_key is given without an application_id"),
        ({"application_id": "0" * 36, "tenant": "t"}, "needs either application_key or application_certificate"),
        ({**APPLICATION, "application_certificate": "pem"}, "needs either"),
        ({**APPLICATION, "tenant": ""}, "application_id needs the tenant"),
        ({"method": "blob"}, "method is blob, which needs storage_account and container"),
        ({"storage_account": "abc"}, "storage_account and container are given together"),
        ({"gallery": "g"}, "gallery, gallery_image and gallery_version are given together"),
        ({"regions": ["westeurope"]}, "regions is of a gallery's version"),
        ({"exclude_from_latest": True}, "exclude_from_latest is of a gallery's version"),
        ({"exclude_from_latest": False}, None),
        ({"architecture": "arm64"}, "which only a gallery has"),
        ({"architecture": "arm64", "hyper_v_generation": "V1"}, "generation 2"),
        ({"end_of_life": "2027-02-30"}, "no date that the calendar has"),
        ({"tags": {"a/b": ""}}, "other than <>%&"),
        ({"tags": {"Azure-x": ""}}, "begins with microsoft, azure or windows"),
        ({"tags": {"clouduploader:x": ""}}, "which is for clouduploader's own"),
        ({"tags": {"x": "y" * 257}}, "more than 256 characters"),
        ({"tags": {str(number): "" for number in range(39)}}, "tags are 39"),
    ],
)
def test_rules_between_fields(values, said):
    found = fields.problems({name: value for name, value in values.items() if value != ""}, "auto")
    assert [said in problem for problem in found] == ([True] * len(found) if said and len(found) == 1 else []) or (
        said and any(said in problem for problem in found)
    )
    assert bool(found) == bool(said)


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("openSUSE.x86_64-1.0.vhdfixed.xz", "openSUSE.x86_64-1.0"),
        ("image.raw.xz", "image.raw"),
        ("image.vhd", "image"),
        ("bild für alle.qcow2", "bild-f-r-alle.qcow2"),
        ("...", "image"),
        ("x" * 100, "x" * 80),
    ],
)
def test_name_of_an_image_is_made_from_its_file_s(filename, name):
    assert fields.image_name({}, filename) == name
    (field,) = [field for field in fields.FIELDS if field.name == "image_name"]
    from clouduploader.plugin.fields import is_allowed

    assert is_allowed(field, name)


def test_name_that_is_given_goes_before():
    assert fields.image_name({"image_name": "mine"}, "image.raw") == "mine"
