import pytest

from clouduploader.errors import (
    DeniedError,
    ImageError,
    PlatformReplyError,
    TargetDataError,
    TransientError,
)
from clouduploader.plugin import CleanUpReport, CloudObject, ObjectState, PhaseStarted

UEFI, BIOS = {"boots_uefi": True, "boots_bios": False}, {"boots_uefi": False, "boots_bios": True}


def features(image):
    return [feature["type"] for feature in image["guestOsFeatures"]]


def made_of(google, made):
    return google.site.compute.images[made.run().id]


@pytest.mark.parametrize(
    ("facts", "data", "expected"),
    [
        ({}, {}, ["GVNIC", "VIRTIO_SCSI_MULTIQUEUE"]),
        (BIOS, {}, ["GVNIC", "VIRTIO_SCSI_MULTIQUEUE"]),
        (UEFI, {}, ["GVNIC", "UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE"]),
        (UEFI, {"guest_os_features": ["IDPF", "SEV_CAPABLE"]}, ["IDPF", "SEV_CAPABLE", "UEFI_COMPATIBLE"]),
        ({}, {"guest_os_features": ["UEFI_COMPATIBLE"]}, ["UEFI_COMPATIBLE"]),
        ({}, {"guest_os_features": []}, []),
        ({}, {"architecture": "arm64"}, ["GVNIC", "UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE"]),
    ],
    ids=str,
)
def test_features_are_those_of_the_image_and_what_is_asked_for(google, uploads, facts, data, expected):
    made = uploads(**data)
    made.facts = facts
    assert features(made_of(google, made)) == expected


@pytest.mark.parametrize(
    ("facts", "data", "error"),
    [
        (BIOS, {"guest_os_features": ["UEFI_COMPATIBLE"]}, "the image has no EFI boot loader"),
        (BIOS, {"guest_os_features": ["SEV_CAPABLE"]}, "SEV_CAPABLE, which needs UEFI_COMPATIBLE"),
        ({"architectures": ("arm64",)}, {"architecture": "x86_64"}, "the image's boot loader is for arm64"),
        ({"minimum_bytes": 1 << 40}, {}, "is cut off"),
    ],
    ids=str,
)
def test_image_that_is_another_than_the_data_say_is_refused_unless_forced(google, uploads, facts, data, error):
    made = uploads(**data)
    made.facts = facts
    with pytest.raises((ImageError, TargetDataError), match=error):
        made.run()
    assert google.calls("objects.insert") == []
    made = uploads(**data, force=True)
    made.facts = facts
    assert made.run().id == "my-image"
    assert any(line.startswith("Going on all the same, as force says") for line in made.record.lines)


def test_image_for_machines_that_google_has_not_is_refused(uploads):
    made = uploads()
    made.facts = {"architectures": ("riscv64",)}
    with pytest.raises(ImageError, match="riscv64"):
        made.run()


@pytest.mark.parametrize(("name", "expected"), [("x86_64", "X86_64"), ("arm64", "ARM64")])
def test_architecture_is_that_of_the_image(google, uploads, name, expected):
    made = uploads()
    made.facts = {"architectures": (name,), **UEFI}
    assert made_of(google, made)["architecture"] == expected


def test_image_bears_what_was_given_and_where_it_comes_from(google, uploads):
    made = uploads(
        family="my-family", description="An image, made here.", labels={"team": "images"}, storage_location="eu"
    )
    image = made_of(google, made)
    assert (image["family"], image["description"], image["storageLocations"]) == (
        "my-family",
        "An image, made here.",
        ["eu"],
    )
    assert len(image["labels"].pop("clouduploader-digest")) == 52
    assert image["labels"].pop("clouduploader-version")
    assert image["labels"] == {
        "team": "images",
        "clouduploader-key": made.journal.key,
        "clouduploader-job": "42",
        "clouduploader-project": "home-tom",
        "clouduploader-package": "image",
        "clouduploader-repository": "images",
        "clouduploader-arch": "x86_64",
        "clouduploader-filename": "my-image-raw",
    }


def test_same_image_again_is_the_success_of_the_first(google, uploads):
    uploads().run()
    result = uploads(share=["user:ann@example.com"]).run()
    assert (result.id, result.is_already_there) == ("my-image", True)
    assert len(google.calls("objects.insert")) == 1
    assert google.site.compute.policies["my-image"]["bindings"][0]["members"] == ["user:ann@example.com"]


def test_name_of_another_image_is_refused_before_anything_is_sent(google, uploads):
    uploads().run()
    made = uploads()
    made.change_image()
    with pytest.raises(PlatformReplyError, match="there is an image my-image already, and it was not made of the same"):
        made.run()
    assert len(google.calls("objects.insert")) == 1


@pytest.mark.parametrize(
    ("data", "differing"),
    [({"architecture": "arm64"}, "architecture and guestOsFeatures"), ({"family": "other-family"}, "family")],
)
def test_image_of_that_name_that_is_not_what_is_asked_for_is_no_success(google, uploads, data, differing):
    uploads().run()
    with pytest.raises(PlatformReplyError, match=f"there is an image my-image already, with another {differing}"):
        uploads(**data).run()


def test_archive_that_google_can_t_use_fails_and_leaves_nothing(google, uploads):
    google.site.compute.alignment_bytes = 1 << 30
    with pytest.raises(PlatformReplyError, match="The disk size must be a multiple"):
        uploads().run()
    assert (google.site.compute.images, google.objects()) == ({}, [])


def test_failed_image_of_a_try_that_died_is_made_anew(google, uploads):
    google.site.compute.alignment_bytes = 1 << 30
    made = uploads()
    made.die("GET operation on image", 1)
    google.site.compute.alignment_bytes = 5 << 20
    assert made_of(google, made)["status"] == "READY"
    assert google.objects() == []


def test_image_that_google_makes_otherwise_is_refused(google, uploads):
    def change(_event):
        for image in google.site.compute.images.values():
            image["family"] = "other-family"

    with pytest.raises(PlatformReplyError, match="image my-image was made with another family"):
        uploads(family="my-family").run(change)
    assert google.site.compute.images == {}


def test_quota_is_said(google, uploads):
    google.site.compute.max_images = 0
    with pytest.raises(DeniedError, match="Quota 'IMAGES' exceeded"):
        uploads().run()
    assert google.objects() == []


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "images.insert", "nth": 1, "lose_answer": True},
        {"action": "images.insert", "first": 2, "code": "rateLimitExceeded"},
        {"action": "globalOperations.get", "first": 2, "code": "backendError"},
        {"action": "images.get", "first": 1, "lose_answer": True},
        {"action": "objects.delete", "first": 1, "code": "backendError"},
        {"action": "token", "first": 1, "status": 503},
    ],
    ids=str,
)
def test_upload_gets_over_what_passes(google, uploads, fault):
    google.faults.replace([fault])
    assert uploads().run().id == "my-image"
    assert (list(google.site.compute.images), google.objects()) == (["my-image"], [])


def test_archive_is_kept_for_another_try_where_that_may_help(google, uploads):
    google.faults.replace([{"action": "images.insert", "code": "backendError"}])
    made = uploads()
    with pytest.raises(TransientError):
        made.run()
    assert len(google.objects()) == 1
    google.faults.replace([])
    assert made.run().id == "my-image"
    assert len(google.calls("objects.insert")) == 1
    assert google.objects() == []


def test_older_images_of_the_family_are_deprecated(google, uploads):
    for name in ("my-image-1", "my-image-2"):
        uploads(image_name=name, family="my-family").run()
    uploads(image_name="other", family="other-family").run()
    images = google.site.compute.images
    images["my-image-1"]["deprecated"] = {"state": "OBSOLETE"}
    result = uploads(image_name="my-image-3", family="my-family", deprecate_older="DEPRECATED").run()
    assert result.shortfalls == ()
    assert images["my-image-2"]["deprecated"] == {
        "state": "DEPRECATED",
        "replacement": images["my-image-3"]["selfLink"],
    }
    assert images["my-image-1"]["deprecated"] == {"state": "OBSOLETE"}
    assert not any("deprecated" in images[name] for name in ("my-image-3", "other"))


def test_sharing_keeps_what_is_there(google, uploads):
    uploads(share=["group:ops@example.com"]).run()
    policy = google.site.compute.policies["my-image"]
    policy["bindings"].append({"role": "roles/compute.admin", "members": ["user:root@example.com"]})
    uploads(share=["group:ops@example.com", "allAuthenticatedUsers"]).run()
    assert google.site.compute.policies["my-image"]["bindings"] == [
        {"role": "roles/compute.imageUser", "members": ["group:ops@example.com", "allAuthenticatedUsers"]},
        {"role": "roles/compute.admin", "members": ["user:root@example.com"]},
    ]


@pytest.mark.parametrize(
    ("data", "action", "subject"),
    [
        ({"share": ["user:ann@example.com"]}, "images.setIamPolicy", "sharing my-image"),
        ({"family": "f", "deprecate_older": "OBSOLETE"}, "images.list", "older images of f"),
    ],
)
def test_what_fails_after_the_image_is_a_shortfall(google, uploads, data, action, subject):
    google.faults.replace([{"action": action, "code": "forbidden"}])
    result = uploads(**data).run()
    assert result.id == "my-image"
    assert [shortfall.subject for shortfall in result.shortfalls] == [subject]


def test_plan_says_all_and_changes_nothing(google, uploads):
    made = uploads(share=["user:ann@example.com"], family="f", deprecate_older="OBSOLETE")
    made.facts = UEFI
    assert list(made.platform.plan(made.context())) == [
        "send the disk as disk.raw in a tar.gz to bucket clouduploader-bucket",
        "make image my-image in project clouduploader-test of it, for X86_64, with GVNIC, UEFI_COMPATIBLE, "
        "VIRTIO_SCSI_MULTIQUEUE",
        "remove the archive from bucket clouduploader-bucket",
        "let user:ann@example.com use it",
        "make the older images of family f obsolete",
    ]
    assert (google.site.compute.images, google.calls("objects.insert")) == ({}, [])
    made.run()
    assert next(iter(made.platform.plan(made.context()))) == "leave image my-image as it is, for it is of the same disk"


def test_plan_names_the_rights_that_are_missing(google, uploads):
    google.site.identity.rights = {**google.site.identity.rights, "project": ("compute.images.get",)}
    made = uploads(share=["user:ann@example.com"])
    with pytest.raises(DeniedError, match=r"compute\.images\.create.*compute\.images\.setIamPolicy"):
        list(made.platform.plan(made.context()))


def test_leftovers_of_an_upload_that_died_are_found_and_removed(google, uploads):
    made = uploads()
    google.site.compute.alignment_bytes = 1 << 30
    made.die("GET operation on image", 1)
    platform, ctx = made.platform, made.context()
    found = list(platform.find(ctx, made.journal.key))
    assert [(one.object.kind, one.state, one.keep_reason, one.job_name) for one in found] == [
        ("object", ObjectState.COMPLETE, None, "42"),
        ("image", ObjectState.PARTIAL, None, "42"),
    ]
    assert list(platform.find(ctx, "f" * 32)) == []
    report = platform.clean_up(ctx, [one.object for one in found])
    assert len(report.removed) == 2
    assert (google.site.compute.images, google.objects()) == ({}, [])


def test_image_that_another_upload_made_since_is_not_removed(google, uploads):
    uploads().run()
    made = uploads()
    google.site.compute.images["my-image"]["labels"]["clouduploader-key"] = "f" * 32
    report = made.platform.clean_up(made.context(), [CloudObject("image", "my-image")])
    assert report == CleanUpReport()
    assert list(google.site.compute.images) == ["my-image"]


def test_image_in_the_making_is_removed_once_that_can_be(google, uploads):
    made = uploads()
    made.die("POST image")
    report = made.platform.clean_up(made.context(), [one.object for one in made.platform.find(made.context(), None)])
    assert len(report.removed) == 2
    assert google.site.compute.images == {}


def test_phases_are_told(google, uploads):
    made = uploads()
    made.run()
    phases = [event.phase for event in made.record.events if isinstance(event, PhaseStarted)]
    assert phases == ["check image", "upload", "make image", "finish"]
