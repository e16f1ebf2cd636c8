"""The sandbox's Resource Manager refuses what Azure's documentation refuses."""

import pytest
import urllib3
from fakes.azure_cloud import AzureCloud

GENERATION = {"hyperVGeneration": "V1"}
DISK = {"createOption": "Upload", "uploadSizeBytes": (20 << 20) + 512}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    made = AzureCloud(tmp_path_factory.mktemp("azure"))
    yield made
    made.close()


@pytest.fixture
def cloud(running):
    running.servers.reset()
    return running


@pytest.fixture
def ask(cloud):
    """Asks Resource Manager, and gives the status and the error's code."""
    pool = urllib3.PoolManager(ca_certs=str(cloud.ca))

    def ask(method, path, document=None, *, version="2024-07-01", token=None):
        url = f"{cloud.url}{path}" + (f"?api-version={version}" if version else "")
        given = token or cloud.account.issue(cloud.url)
        answer = pool.request(method, url, json=document, headers={"Authorization": f"Bearer {given}"})
        error = answer.json().get("error", {}) if answer.data else {}
        return answer.status, error.get("code")

    yield ask
    pool.clear()


def image(cloud, name="image"):
    return f"{cloud.account.group_id}/providers/Microsoft.Compute/images/{name}"


def document(**changes):
    disk = {"osType": "Linux", "osState": "Generalized", "blobUri": "https://127.0.0.1/none"}
    made = {"location": "westeurope", "properties": {**GENERATION, "storageProfile": {"osDisk": disk}}}
    return {**made, **changes}


def test_token_for_something_else_is_refused(cloud, ask):
    assert ask("GET", image(cloud), token=cloud.account.issue("https://storage.azure.com")) == (
        401,
        "InvalidAuthenticationTokenAudience",
    )


def test_token_that_has_expired_is_refused(cloud, ask):
    token = cloud.account.issue(cloud.url)
    cloud.account.expire()
    assert ask("GET", image(cloud), token=token) == (401, "ExpiredAuthenticationToken")
    assert ask("GET", image(cloud), token="made.up.token") == (401, "InvalidAuthenticationToken")


def test_version_must_be_there_and_known(cloud, ask):
    assert ask("GET", image(cloud), version=None) == (400, "MissingApiVersionParameter")
    assert ask("GET", image(cloud), version="2011-01-01") == (400, "NoRegisteredProviderFound")


def test_action_that_the_role_lacks_is_refused(cloud, ask):
    cloud.account.rights = {"actions": ("Microsoft.Compute/images/read",), "dataActions": ()}
    assert ask("PUT", image(cloud), document()) == (403, "AuthorizationFailed")
    assert ask("GET", image(cloud)) == (404, "ResourceNotFound")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"location": None}, "LocationRequired"),
        ({"location": "moon"}, "LocationNotAvailableForResourceType"),
        ({"tags": {"a/b": "c"}}, "InvalidTagNameCharacters"),
        ({"tags": {"a": "c" * 257}}, "InvalidTagValue"),
        ({"tags": {str(number): "" for number in range(51)}}, "InvalidTags"),
        ({"colour": "blue"}, "InvalidRequestContent"),
        ({"properties": {"storageProfile": {}}}, "InvalidParameter"),
        ({"properties": {**GENERATION, "storageProfile": {"osDisk": {"osType": "Linux"}}}}, "InvalidParameter"),
        ({}, "InvalidParameter"),  # there is no such blob
    ],
)
def test_image_that_is_wrong_is_refused(cloud, ask, changes, code):
    wanted = {name: value for name, value in document(**changes).items() if value is not None}
    assert ask("PUT", image(cloud), wanted) == (400, code)
    assert cloud.account.resources == {}


def test_image_s_name_must_be_one(cloud, ask):
    assert ask("PUT", image(cloud, "-image"), document()) == (400, "InvalidParameter")


@pytest.mark.parametrize("size", [(20 << 20) + 513, 20 << 20, 512, None])
def test_disk_of_a_wrong_size_is_refused(cloud, ask, size):
    path = f"{cloud.account.group_id}/providers/Microsoft.Compute/disks/disk"
    properties = {**GENERATION, "creationData": {**DISK, "uploadSizeBytes": size}}
    wanted = {"location": "westeurope", "properties": properties}
    assert ask("PUT", path, wanted, version="2024-03-02") == (400, "InvalidParameter")


def test_disk_that_is_being_written_is_neither_deleted_nor_made_an_image(cloud, ask):
    path = f"{cloud.account.group_id}/providers/Microsoft.Compute/disks/disk"
    wanted = {"location": "westeurope", "properties": {**GENERATION, "creationData": DISK}}
    assert ask("PUT", path, wanted, version="2024-03-02")[0] == 202
    access = {"access": "Write", "durationInSeconds": 60}
    assert ask("POST", f"{path}/beginGetAccess", access, version="2024-03-02")[0] == 202
    assert ask("DELETE", path, version="2024-03-02") == (409, "OperationNotAllowed")
    disk = {"osType": "Linux", "osState": "Generalized", "managedDisk": {"id": path}}
    made = document(properties={**GENERATION, "storageProfile": {"osDisk": disk}})
    assert ask("PUT", image(cloud), made) == (409, "OperationNotAllowed")
