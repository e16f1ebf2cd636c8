import dataclasses
import signal

import pytest
from fakes.openstack_cloud import fault
from unit.platforms.openstack.conftest import CONTENT

from clouduploader.errors import (
    CredentialsError,
    DeniedError,
    PlatformReplyError,
    StoppedError,
    TargetDataError,
    ThrottledError,
    TransientError,
    UnavailableError,
)
from clouduploader.model.disk import DiskFormat
from clouduploader.platforms.openstack import upload as openstack_upload
from clouduploader.plugin import CloudObject, PhaseStarted, UploadContext
from clouduploader.plugin.testing import FakeClock, RecordingReporter, opened_stream
from clouduploader.util.cancel import Cancel

QCOW2 = b"QFI\xfb" + bytes(1 << 20)
PUT = ("PUT", ".*/file")


def only(cloud, region="RegionOne"):
    (image,) = cloud.images[region].values()
    return image


def calls(cloud, method, ending):
    return [path for verb, path in cloud.calls if verb == method and path.endswith(ending)]


def plan(platform, request):
    return list(platform.plan(UploadContext(platform, request, RecordingReporter(), Cancel(), clock=FakeClock())))


def test_image_is_the_disk_and_says_where_it_came_from(upload, cloud):
    result = upload()
    image = only(cloud)
    assert result.id == image["id"]
    assert result.objects == (CloudObject("image", image["id"], "RegionOne"),)
    assert cloud.data[image["id"]] == CONTENT
    assert (image["name"], image["disk_format"], image["container_format"]) == ("my image", "raw", "bare")
    assert (image["visibility"], image["architecture"]) == ("private", "x86_64")
    assert {"clouduploader", "clouduploader:project=home:tom", "clouduploader:job=42"} <= set(image["tags"])
    assert f"clouduploader:key={'0123456789abcdef' * 2}" in image["tags"]


def test_target_data_become_properties(upload, cloud):
    properties = {
        "hw_firmware_type": "uefi",
        "hw_machine_type": "q35",
        "hw_disk_bus": "virtio",
        "hw_vif_model": "virtio",
        "os_distro": "opensuse",
        "min_disk": 3,
        "min_ram": 512,
        "visibility": "community",
    }
    upload(**properties, architecture="arm64", properties={"hw_rng_model": "virtio"}, tags=["a", "b,c"])
    image = only(cloud)
    assert {"a", "b,c"} <= set(image["tags"])
    assert properties.items() <= image.items()
    assert (image["architecture"], image["hw_rng_model"]) == ("aarch64", "virtio")


@pytest.mark.parametrize(
    ("uefi", "bios", "firmware"),
    [(True, False, "uefi"), (True, None, "uefi"), (True, True, "bios"), (False, True, "bios"), (None, None, None)],
)
def test_firmware_is_what_the_image_boots_by(upload, cloud, uefi, bios, firmware):
    upload(facts={"boots_uefi": uefi, "boots_bios": bios})
    assert only(cloud).get("hw_firmware_type") == firmware


def test_qcow2_is_sent_as_it_is_where_that_is_asked_for(upload, cloud, make_upload):
    made = make_upload(content=QCOW2, disk_format=DiskFormat.QCOW2)
    opened = []

    def open_stream(encoding, digest):
        opened.append(encoding)
        return opened_stream(made.image.path, digest)

    data = {**made.targetdata, "disk_format": "qcow2"}
    upload(made=dataclasses.replace(made, targetdata=data, open_stream=open_stream))
    assert opened == ["qcow2"]
    assert only(cloud)["disk_format"] == "qcow2"
    assert cloud.data[only(cloud)["id"]] == QCOW2


def test_content_goes_with_its_length_if_that_is_known(upload, cloud, make_upload):
    upload()
    made = make_upload(image_name="other")
    path = made.image.path
    upload(
        made=dataclasses.replace(
            made, open_stream=lambda _encoding, digest: opened_stream(path, digest, is_size_known=False)
        )
    )
    assert cloud.framings == [str(len(CONTENT)), "chunked"]


def test_content_that_glance_refuses_ends_the_upload(upload, cloud):
    with pytest.raises(PlatformReplyError, match="Image failed safety checks"):
        upload(content=QCOW2)
    assert cloud.all_images() == {}


def test_broken_transfer_begins_again_with_another_image(upload, cloud):
    cloud.faults += [fault(*PUT, cut_bytes=1 << 20), fault(*PUT, refuse=503), fault(*PUT, hang_up=True)]
    record = RecordingReporter()
    result = upload(record=record)
    assert list(cloud.all_images()) == [result.id]
    assert cloud.data[result.id] == CONTENT
    assert record.existing == set(result.objects)
    assert len(calls(cloud, "PUT", "/file")) == 4
    assert len(calls(cloud, "DELETE", "")) == 3


def test_transfer_that_always_breaks_is_given_up(upload, cloud):
    cloud.faults.append(fault(*PUT, cut_bytes=1, times=1000))
    with pytest.raises(TransientError):
        upload()
    assert cloud.all_images() == {}
    assert len(calls(cloud, "PUT", "/file")) == openstack_upload.TRIES


def test_lost_answer_to_the_transfer_is_made_good(upload, cloud):
    cloud.faults.append(fault(*PUT, lose_answer=True))
    result = upload()
    assert list(cloud.all_images()) == [result.id]
    assert len(calls(cloud, "PUT", "/file")) == 1


def test_lost_answer_to_the_creation_makes_no_second_image(upload, cloud):
    cloud.faults.append(fault("POST", ".*/images", lose_answer=True))
    result = upload()
    assert list(cloud.all_images()) == [result.id]
    assert len(calls(cloud, "POST", "/images")) >= 2  # a connection that the server ends late costs one more


@pytest.mark.parametrize("status", [429, 500, 503])
def test_calls_are_made_again(upload, cloud, status):
    cloud.faults += [fault(method, ".*", refuse=status, times=2) for method in ("GET", "POST")]
    assert upload().id in cloud.all_images()


def test_throttling_that_lasts_is_told_as_such(upload, cloud):
    cloud.faults.append(fault("GET", ".*/v2/images", refuse=429, times=1000))
    with pytest.raises(ThrottledError, match="GET images in RegionOne: fault"):
        upload()


def test_other_content_than_was_sent_ends_the_upload(upload, cloud):
    cloud.is_corrupting = True
    with pytest.raises(PlatformReplyError, match="is not what was sent: its sha512 is"):
        upload()
    assert cloud.all_images() == {}


def test_digest_of_another_kind_is_compared_too(upload, cloud):
    cloud.hash_algorithm = "sha256"
    assert upload().id in cloud.all_images()
    cloud.is_corrupting = True
    with pytest.raises(PlatformReplyError, match="its sha256 is"):
        upload(image_name="other")


def test_property_that_the_cloud_changes_ends_the_upload(upload, cloud):
    cloud.overriding = {"hw_disk_bus": "scsi"}
    with pytest.raises(PlatformReplyError, match="its hw_disk_bus is scsi, that of this one virtio"):
        upload(hw_disk_bus="virtio")
    assert cloud.all_images() == {}


def test_name_of_an_image_with_the_same_content_is_the_success_of_an_earlier_upload(upload, cloud):
    first, record = upload(), RecordingReporter()
    cloud.calls.clear()
    again = upload(record=record)
    assert (again.id, again.is_already_there) == (first.id, True)
    assert again.objects == first.objects
    assert calls(cloud, "POST", "/images") == []
    assert record.existing == set()


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"content": b"other"}, "it has another content"),
        ({"hw_disk_bus": "sata"}, "its hw_disk_bus is not set, that of this one sata"),
        ({"architecture": "arm64"}, "its architecture is x86_64, that of this one aarch64"),
        ({"tags": ["new"]}, "it has no tag new"),
        ({"visibility": "community"}, "its visibility is private, that of this one community"),
    ],
)
def test_name_of_another_image_is_refused(upload, cloud, changes, difference):
    first = upload()
    words = f"there is an image of that name in RegionOne already, {first.id}: {difference}"
    with pytest.raises(PlatformReplyError, match=words):
        upload(**changes)
    assert list(cloud.all_images()) == [first.id]


@pytest.mark.parametrize("status", ["queued", "saving", "killed"])
def test_unfinished_image_of_the_name_is_no_obstacle(upload, cloud, status):
    cloud.add_image(name="my image", status=status)
    upload()
    assert len(cloud.all_images()) == 2


def test_image_of_another_project_is_no_obstacle(upload, cloud):
    cloud.add_image(name="my image", owner="other", content=b"other")
    assert not upload().is_already_there


@pytest.mark.parametrize("status", ["queued", "saving", "uploading"])
def test_leftover_of_a_killed_try_is_removed(upload, cloud, status, make_upload):
    key = make_upload().journal.key
    cloud.add_image(name="my image", tags=["clouduploader", f"clouduploader:key={key}"], status=status)
    foreign = cloud.add_image(name="my image", tags=["clouduploader", "clouduploader:key=other"], status=status)
    result = upload()
    assert set(cloud.all_images()) == {result.id, foreign["id"]}


def test_further_regions_get_the_same_image(upload, cloud):
    result = upload(regions=["RegionTwo", "RegionOne", "RegionTwo"])
    assert result.id == only(cloud)["id"]
    two = only(cloud, "RegionTwo")
    assert result.objects[1:] == (CloudObject("image", two["id"], "RegionTwo"),)
    assert cloud.data[two["id"]] == CONTENT
    assert result.shortfalls == ()


def test_region_that_fails_is_a_shortfall(upload, cloud):
    cloud.faults.append(fault("PUT", "/image/RegionTwo/.*", refuse=413))
    record = RecordingReporter()
    result = upload(regions=["Nowhere", "RegionTwo"], record=record)
    assert [item.subject for item in result.shortfalls] == ["Nowhere", "RegionTwo"]
    assert "no image service in the region Nowhere" in result.shortfalls[0].reason
    assert list(cloud.all_images()) == [result.id]
    assert record.existing == set(result.objects)
    again = upload(regions=["RegionTwo"])
    assert again.is_already_there
    assert again.shortfalls == ()
    assert len(cloud.all_images()) == 2


def test_members_get_the_image(upload, cloud):
    cloud.rules = None
    result = upload(members=["p1", "p2"])
    assert cloud.members[result.id] == ["p1", "p2"]
    assert only(cloud)["visibility"] == "shared"
    again = upload(members=["p2", "p3"])
    assert again.id == result.id
    assert cloud.members[result.id] == ["p1", "p2", "p3"]


def test_staging_and_import_where_that_is_asked_for(upload, cloud):
    cloud.rules, cloud.importing = None, 2
    result = upload(settings={"method": "glance-direct"})
    assert cloud.data[result.id] == CONTENT
    assert calls(cloud, "PUT", "/file") == []
    assert len(calls(cloud, "POST", "/import")) == 1


def test_import_that_the_cloud_has_not_is_refused_before_the_transfer(upload, cloud):
    cloud.rules, cloud.import_methods = None, "web-download"
    with pytest.raises(UnavailableError, match="no import by glance-direct in RegionOne"):
        upload(method="glance-direct")
    assert cloud.all_images() == {}
    assert calls(cloud, "PUT", "/stage") == []


def test_import_that_fails_ends_the_upload(upload, cloud):
    cloud.rules, cloud.is_failing_import = None, True
    with pytest.raises(PlatformReplyError, match="it is failed"):
        upload(method="glance-direct")
    assert cloud.all_images() == {}


def test_access_rule_that_is_missing_is_named(upload, cloud):
    cloud.rules.remove(("PUT", "/v2/images/*/file"))
    with pytest.raises(CredentialsError) as caught:
        upload()
    assert "it needs one for PUT /v2/images/" in caught.value.hint
    assert cloud.all_images() == {}
    assert len(calls(cloud, "PUT", "/file")) == 1


def test_right_that_is_missing_is_told(upload):
    with pytest.raises(DeniedError, match="not authorized to complete publicize_image"):
        upload(visibility="public")


def test_token_that_was_revoked_is_renewed(upload, cloud):
    def revoke(event):
        if event == PhaseStarted("verify"):
            cloud.tokens.clear()

    record = RecordingReporter(revoke)
    assert upload(record=record).id in cloud.all_images()
    assert len(calls(cloud, "POST", "/auth/tokens")) == 2


def test_wrong_secret_is_told(upload):
    with pytest.raises(CredentialsError, match="requires authentication"):
        upload(application_credential_secret="something else")


def test_upload_without_a_credential_is_for_persons_only(upload):
    with pytest.raises(TargetDataError, match="no application credential configured"):
        upload(application_credential_id=None, application_credential_secret=None)


def test_stop_while_the_cloud_does_not_read_is_seen(upload, cloud):
    cancel = Cancel()
    cloud.faults.append(fault(*PUT, stall=lambda: cancel.request(signal.SIGTERM)))
    with pytest.raises(StoppedError):
        upload(cancel=cancel)
    assert cloud.all_images() == {}


def test_plan_says_what_would_be_done(make_platform, make_upload, upload, cloud):
    assert plan(make_platform(), make_upload(regions=["RegionTwo"], members=["p1"])) == [
        "make the image 'my image' in RegionOne",
        "make the image 'my image' in RegionTwo",
        "share it with p1",
    ]
    assert cloud.all_images() == {}
    first = upload()
    steps = plan(make_platform(), make_upload())
    assert steps == [f"leave image {first.id} in RegionOne as it is, for it is the same"]
