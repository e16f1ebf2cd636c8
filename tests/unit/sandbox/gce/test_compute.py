import datetime
import gzip
import tarfile
import uuid

import pytest
from fakes.google_cloud import BUCKET, PROJECT

from .conftest import GoogleClient, refusal
from .test_storage import begin

IMAGES = f"compute/v1/projects/{PROJECT}/global/images"
DISK = b"disk".ljust(1 << 20, b"\0")


def archive(name="disk.raw", disk=DISK, form=tarfile.GNU_FORMAT, rest=b""):
    member = tarfile.TarInfo(name)
    member.size = len(disk)
    return gzip.compress(member.tobuf(form) + disk + bytes(2 * tarfile.BLOCKSIZE) + rest)


@pytest.fixture
def put_archive(client):
    def put(data):
        uri = begin(client, "disk.tar.gz").headers["Location"]
        ranged = f"bytes 0-{len(data) - 1}/{len(data)}"
        assert client.ask("PUT", "", uri, data=data, headers={"Content-Range": ranged}).status_code == 200

    return put


def document(**changes):
    made = {
        "name": "my-image",
        "architecture": "X86_64",
        "labels": {"team": "images"},
        "rawDisk": {"source": f"https://storage.googleapis.com/{BUCKET}/disk.tar.gz", "containerType": "TAR"},
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def insert(client, request_id=None, **changes):
    params = {"requestId": request_id} if request_id else {}
    return client.ask("POST", "compute", IMAGES, json=document(**changes), params=params)


def ended(client, operation):
    """Look at an operation until it has ended."""
    for _ in range(5):
        operation = client.ask("GET", "", operation["selfLink"]).json()
    return operation


def test_image_is_made_of_its_archive(google, client, put_archive):
    put_archive(archive())
    operation = insert(client).json()
    assert operation["status"] == "PENDING"
    assert client.ask("GET", "compute", f"{IMAGES}/my-image").json()["status"] == "PENDING"
    assert "error" not in ended(client, operation)
    image = client.ask("GET", "compute", f"{IMAGES}/my-image").json()
    assert (image["status"], image["diskSizeGb"], image["labels"]) == ("READY", "1", {"team": "images"})
    assert google.site.compute.disk("my-image").read_bytes() == DISK


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"this is no gzip at all", "no gzip"),
        (archive()[:-20], "gzip"),
        (archive(name="other.raw"), "must hold disk.raw"),
        (archive(form=tarfile.USTAR_FORMAT), "in the format oldgnu"),
        (archive(disk=DISK + bytes(512)), "must be a multiple of"),
        (archive(rest=b"more"), "must end after disk.raw"),
    ],
    ids=["no gzip", "cut off", "another name", "another format", "not whole", "more behind it"],
)
def test_archive_that_is_none_fails_the_operation(google, client, put_archive, data, words):
    put_archive(data)
    operation = ended(client, insert(client).json())
    assert words in operation["error"]["errors"][0]["message"]
    assert google.site.compute.images["my-image"]["status"] == "FAILED"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "My"},
        {"name": "a" * 64},
        {"name": None},
        {"family": "a_b"},
        {"architecture": "x86_64"},
        {"architecture": "ARM64"},
        {"guestOsFeatures": [{"type": "FAST"}]},
        {"labels": {"Team": ""}},
        {"labels": {"team": "A"}},
        {"labels": {"team": "x" * 64}},
        {"labels": {f"l{number}": "" for number in range(65)}},
        {"storageLocations": ["nowhere"]},
        {"rawDisk": None},
        {"rawDisk": {"source": f"gs://{BUCKET}/disk.tar.gz"}},
        {"unknown": "x"},
    ],
    ids=str,
)
def test_document_that_breaks_a_rule_is_refused(client, put_archive, changes):
    put_archive(archive())
    assert insert(client, **changes).status_code == 400


def test_archive_that_is_not_there_is_refused(client):
    assert refusal(insert(client)) == (404, "notFound")


def test_name_that_is_taken_is_refused(client, put_archive):
    put_archive(archive())
    assert insert(client).status_code == 200
    assert refusal(insert(client)) == (409, "alreadyExists")


def test_same_request_id_gives_the_same_operation(client, put_archive):
    put_archive(archive())
    request_id = str(uuid.uuid4())
    assert insert(client, request_id).json()["name"] == insert(client, request_id).json()["name"]
    assert insert(client, "no-uuid").status_code == 400
    assert insert(client, str(uuid.UUID(int=0))).status_code == 400


def test_image_in_the_making_can_t_be_deleted(google, client, put_archive):
    put_archive(archive())
    google.site.compute.image_seconds = 3600
    operation = insert(client).json()
    assert refusal(client.ask("DELETE", "compute", f"{IMAGES}/my-image")) == (400, "resourceNotReady")
    google.clock.offset += datetime.timedelta(hours=1)
    ended(client, operation)
    ended(client, client.ask("DELETE", "compute", f"{IMAGES}/my-image").json())
    assert refusal(client.ask("GET", "compute", f"{IMAGES}/my-image")) == (404, "notFound")


def test_policy_of_another_time_is_refused(client, put_archive):
    put_archive(archive())
    insert(client)
    bindings = [{"role": "roles/compute.imageUser", "members": ["user:ann@example.com"]}]
    policy = client.ask("GET", "compute", f"{IMAGES}/my-image/getIamPolicy").json() | {"bindings": bindings}
    change = f"{IMAGES}/my-image/setIamPolicy"
    assert client.ask("POST", "compute", change, json={"policy": policy}).status_code == 200
    assert refusal(client.ask("POST", "compute", change, json={"policy": policy})) == (412, "conditionNotMet")
    strange = {"bindings": [{"role": "roles/compute.imageUser", "members": ["allUsers"]}]}
    assert client.ask("POST", "compute", change, json={"policy": strange}).status_code == 400


def test_token_for_another_api_is_refused(google):
    client = GoogleClient(google, ["https://www.googleapis.com/auth/devstorage.read_write"])
    assert refusal(client.ask("GET", "compute", IMAGES)) == (403, "insufficientPermissions")
    assert client.ask("GET", "storage", f"storage/v1/b/{BUCKET}/o").status_code == 200


def test_token_that_has_expired_is_refused(google, client):
    google.site.identity.life_seconds = 60
    assert client.ask("GET", "compute", IMAGES).status_code == 200
    google.clock.offset += datetime.timedelta(minutes=2)
    before = len(google.calls("token"))
    assert client.ask("GET", "compute", IMAGES).status_code == 200  # with another one
    assert len(google.calls("token")) == before + 1


@pytest.mark.parametrize(
    "path", ["compute/v1/projects/other/global/images", f"compute/v1/projects/{PROJECT}/global/disks", "x"]
)
def test_what_is_not_there_is_not_found(client, path):
    assert refusal(client.ask("GET", "compute", path)) == (404, "notFound")
