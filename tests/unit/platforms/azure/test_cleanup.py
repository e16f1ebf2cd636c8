import pytest

from clouduploader.errors import PlatformReplyError
from clouduploader.plugin import CloudObject, ObjectState

METHODS = pytest.mark.parametrize("is_by_blob", [True, False], ids=["blob", "disk"])


def find(uploader, key=None):
    return list(uploader.platform.find(uploader.context(), key))


@pytest.fixture
def make_killed(cloud, make_uploader):
    """Makes an uploader whose try was killed in the middle."""

    def make(**values):
        uploader = make_uploader(**values)
        cloud.faults.replace([{"action": "PutPage", "nth": 2, "code": "InvalidInput", "status": 400}])
        with pytest.raises(PlatformReplyError):
            uploader.run_until_killed()
        cloud.faults.replace([])
        return uploader

    return make


@METHODS
def test_what_a_killed_upload_left_is_found_and_removed(cloud, make_killed, is_by_blob):
    before = set(cloud.remaining())
    uploader = make_killed(is_by_blob=is_by_blob)
    (found,) = find(uploader, uploader.request.journal.key)
    assert (found.object.kind, found.job_name, found.keep_reason) == ("page blob" if is_by_blob else "disk", "42", None)
    assert found.created is not None
    report = uploader.platform.clean_up(uploader.context(), [found.object])
    assert report.removed == (found.object,)
    assert set(cloud.remaining()) == before


@METHODS
def test_all_groups_are_looked_through_where_none_is_named(make_killed, is_by_blob):
    uploader = make_killed(is_by_blob=is_by_blob)
    targetdata = {name: value for name, value in uploader.request.targetdata.items() if name != "resource_group"}
    (found,) = uploader.platform.find(uploader.context(targetdata), None)
    assert found.object.kind == ("page blob" if is_by_blob else "disk")


def test_things_of_other_uploads_are_not_found(make_killed):
    assert find(make_killed(), "f" * 32) == []


@METHODS
def test_image_is_found_and_kept(make_uploader, is_by_blob):
    uploader = make_uploader(is_by_blob=is_by_blob)
    result = uploader.run()
    (found,) = find(uploader)
    assert (found.object.id, found.state) == (result.id, ObjectState.READY)
    assert found.keep_reason


def test_what_is_not_there_is_absent(cloud, make_uploader):
    uploader = make_uploader(is_by_blob=True)
    container = f"{cloud.account.blob_endpoint}{cloud.account.storage_account}/{cloud.account.container}"
    things = [
        CloudObject("image", f"{cloud.account.group_id}/providers/Microsoft.Compute/images/none"),
        CloudObject("disk", f"{cloud.account.group_id}/providers/Microsoft.Compute/disks/none"),
        CloudObject("page blob", f"{container}/none.vhd"),
    ]
    assert set(uploader.platform.clean_up(uploader.context(), things).absent) == set(things)


def test_container_with_blobs_in_it_stays(cloud, make_killed):
    uploader = make_killed(is_by_blob=True)
    container = f"{cloud.account.blob_endpoint}{cloud.account.storage_account}/{cloud.account.container}"
    report = uploader.platform.clean_up(uploader.context(), [CloudObject("container", container)])
    assert [leftover.reason for leftover in report.left] == ["there are blobs in it"]
    assert cloud.storage.containers == {cloud.account.container}
