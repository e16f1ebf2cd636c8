"""Things that go wrong in Azure: the upload goes on, or fails for a reason, and leaves nothing."""

import pytest
from e2e.azure.conftest import AzureCase, DiskCase

from clouduploader.errors import ExitCode

SIZE_BYTES = 9 << 20
METHODS = pytest.mark.parametrize("kind", [AzureCase, DiskCase], ids=["blob", "disk"])


@pytest.fixture
def image(make_image):
    return make_image("disk.raw", size_bytes=SIZE_BYTES)


def test_each_kind_of_fault_of_a_page_is_passed_over(azure, image):
    case = AzureCase(azure)
    faults = [
        {"nth": 1, "code": "ServerBusy", "status": 503},
        {"nth": 2, "lose_answer": True},
        {"nth": 3, "cut_request_bytes": 100_000},
        {"nth": 4, "code": "Crc64Mismatch", "status": 400},
    ]
    azure.faults(*({"action": "PutPage", **fault} for fault in faults))
    case.assert_only(case.upload(image.path), image.raw)
    assert len(azure.calls("PutPage")) == 3 + len(faults)  # two pages with data, and the footer


def test_each_kind_of_fault_of_a_call_is_passed_over(azure, image):
    case = DiskCase(azure)
    azure.faults(
        {"action": "subscriptions/GET", "first": 1, "code": "TooManyRequests", "status": 429},
        {"action": "images/PUT", "first": 1, "lose_answer": True},
        {"action": "images/GET", "nth": 2, "cut_answer": 0.5},
        {"action": "beginGetAccess/POST", "first": 1, "status": 503, "code": "ServiceUnavailable"},
        {"action": "Token", "first": 1, "lose_answer": True},
    )
    case.assert_only(case.upload(image.path), image.raw)


@METHODS
def test_refusal_fails_and_leaves_nothing(azure, image, kind):
    case = kind(azure)
    azure.faults(dict(case.refused))
    done = azure.run(case.command(image.path))
    assert done.returncode == ExitCode.PROTOCOL
    assert "InvalidParameter" in done.stderr
    assert (case.images(), case.others()) == ([], [])


def test_operations_that_take_long_are_waited_for(azure, image):
    case = DiskCase(azure)
    azure.control("POST", "pace", {"seconds": 0.2})
    case.assert_only(case.upload(image.path), image.raw)


def test_rights_that_lack_are_named(azure, image):
    case = DiskCase(azure)
    azure.control("POST", "rights", {"actions": ["Microsoft.Resources/*"], "dataActions": []})
    done = azure.run(case.command(image.path))
    assert done.returncode == ExitCode.DENIED
    assert "Microsoft.Compute/images/read" in done.stderr
    assert (case.images(), case.others()) == ([], [])


def test_auto_goes_on_by_a_disk_where_blobs_are_denied(azure, image):
    case = AzureCase(azure)
    case.method = "auto"
    azure.control("POST", "rights", {**azure.control("GET", "rights"), "dataActions": []})
    case.assert_only(case.upload(image.path), image.raw)
    assert azure.calls("beginGetAccess/POST")


@METHODS
def test_verify_reads_everything_back(azure, image, kind):
    case = kind(azure)
    case.assert_only(case.upload(image.path, "--verify"), image.raw)
    assert len(azure.calls("GetBlob")) == 2


@METHODS
def test_version_in_a_gallery_is_the_image_and_comes_to_further_regions(azure, image, kind):
    case = kind(azure)
    words = ["--gallery-resource-group=clouduploader-galleries", "--gallery=sandbox", "--gallery-image=bios"]
    command = [*case.command(image.path), *words, "--gallery-version=1.0.0"]
    done = azure.run(command)
    assert done.returncode == 0, done.stderr
    result = done.stdout.strip()
    assert "/resourceGroups/clouduploader-galleries/" in result
    assert result.endswith("/galleries/sandbox/images/bios/versions/1.0.0")
    case.assert_only(result, image.raw)
    done = azure.run([*command, "--copy-to=northeurope"])
    assert (done.returncode, done.stdout.strip()) == (0, result), done.stderr
    profile = azure.account()["resources"][result]["properties"]["publishingProfile"]
    assert [region["name"] for region in profile["targetRegions"]] == ["westeurope", "northeurope"]


def test_account_made_step_by_step_is_usable_and_its_secrets_are_encrypted(azure):
    described = azure.description
    words = ["clouduploader", "account"]
    assert azure.run([*words, "create", "tom", "--target=azure"]).returncode == 0
    assert azure.run([*words, "set", "tom", "tenant", described["tenant"], "--target=azure"]).returncode == 0
    for name in ("application_id", "application_key"):
        done = azure.run([*words, "set", "tom", name, "--target=azure"], input=described[name])
        assert done.returncode == 0, done.stderr
    done = azure.run([*words, "verify", "tom", "--target=azure"])
    assert done.returncode == 0, done.stdout + done.stderr
    stored = (azure.home / "database" / "accounts.sqlite").read_bytes()
    assert described["application_key"].encode() not in stored
