import base64
import contextlib
import dataclasses
import json

import pytest

from clouduploader.errors import (
    ClouduploaderError,
    CredentialsError,
    DeniedError,
    ImageError,
    NotFoundError,
    PlatformReplyError,
    TargetDataError,
    TransientError,
)
from clouduploader.model import vhd
from clouduploader.model.disk import Compression
from clouduploader.plugin import CloudObject, UploadContext
from clouduploader.plugin.testing import FakeClock
from clouduploader.util.cancel import Cancel

METHODS = pytest.mark.parametrize("is_by_blob", [True, False], ids=["blob", "disk"])
MIB = 1 << 20


def is_fixed_vhd(footer, disk):
    return vhd.parse_footer(footer) == vhd.VhdFooter(vhd.VhdKind.FIXED, len(disk))


@METHODS
def test_image_holds_the_disk_as_a_fixed_vhd_and_nothing_else_is_left(cloud, make_uploader, is_by_blob):
    uploader = make_uploader(is_by_blob=is_by_blob)
    before = set(cloud.remaining())
    result = uploader.run()
    disk, footer = uploader.content(result.id)
    assert disk == uploader.disk.ljust(20 * MIB, b"\0")
    assert is_fixed_vhd(footer, disk)
    assert set(cloud.remaining()) - before == {result.id.lower()}
    assert result.objects == (CloudObject("image", result.id),)


@METHODS
def test_pages_of_zeros_are_not_sent(cloud, make_uploader, is_by_blob):
    make_uploader(is_by_blob=is_by_blob).run()
    assert cloud.actions().count("PutPage") == 3  # the first and the third of three, and the footer


@METHODS
def test_each_page_has_a_checksum_that_the_service_compares(cloud, make_uploader, is_by_blob):
    uploader = make_uploader(is_by_blob=is_by_blob)
    cloud.faults.replace([{"action": "PutPage", "first": 1, "code": "Crc64Mismatch", "status": 400}])
    result = uploader.run()
    assert uploader.content(result.id)[0].startswith(uploader.disk)


def test_image_tells_generation_and_where_it_came_from(cloud, make_uploader):
    uploader = make_uploader(facts={"boots_uefi": True, "boots_bios": False}, tags={"team": "images"})
    image = cloud.account.resources[uploader.run().id.lower()]
    assert image["properties"]["hyperVGeneration"] == "V2"
    assert image["location"] == cloud.account.location
    assert image["tags"]["team"] == "images"
    assert image["tags"]["clouduploader:key"] == uploader.request.journal.key
    assert image["tags"]["clouduploader:project"] == "home:tom"
    assert image["tags"]["clouduploader:content"].endswith(f":{len(uploader.disk)}")


@pytest.mark.parametrize(
    ("facts", "generation"),
    [
        ({"boots_uefi": True, "boots_bios": True}, "V2"),
        ({"boots_uefi": False, "boots_bios": True}, "V1"),
        ({"boots_uefi": None, "boots_bios": None}, "V1"),
    ],
)
def test_generation_is_what_the_image_tells(cloud, make_uploader, facts, generation):
    image = cloud.account.resources[make_uploader(facts=facts).run().id.lower()]
    assert image["properties"]["hyperVGeneration"] == generation


def test_generation_that_is_asked_for_goes_before(cloud, make_uploader):
    uploader = make_uploader(hyper_v_generation="V2", facts={"boots_uefi": False, "boots_bios": True})
    image = cloud.account.resources[uploader.run().id.lower()]
    assert image["properties"]["hyperVGeneration"] == "V2"
    assert any("does not boot by UEFI" in line for line in uploader.reporter.lines)


def test_target_data_of_obs_name_the_tenant_subscription(cloud, make_uploader):
    uploader = make_uploader(is_by_blob=True, tenant=None, subscription=cloud.account.tenant, image_name=None)
    assert uploader.run().id == f"{cloud.account.group_id}/providers/Microsoft.Compute/images/my.raw"


@METHODS
def test_upload_is_done_with_the_rights_of_the_guide(cloud, make_uploader, is_by_blob):
    extras = {"blob"} if is_by_blob else set()
    cloud.allow(extras)
    make_uploader(is_by_blob=is_by_blob).run()


def test_auto_takes_a_disk_where_blobs_are_denied_and_names_the_role(cloud, make_uploader):
    cloud.account.rights = {**cloud.account.rights, "dataActions": ()}
    uploader = make_uploader(is_by_blob=True)
    uploader.run()
    assert "beginGetAccess/POST" in cloud.actions()
    assert any("Storage Blob Data Contributor" in line for line in uploader.reporter.lines)


def test_blob_that_is_asked_for_and_denied_fails(cloud, make_uploader):
    cloud.account.rights = {**cloud.account.rights, "dataActions": ()}
    with pytest.raises(DeniedError):
        make_uploader(is_by_blob=True, method="blob").run()


def test_image_is_where_its_storage_account_is(cloud, make_uploader):
    cloud.account.storage_location = "northeurope"
    result = make_uploader(is_by_blob=True).run()
    assert cloud.account.resources[result.id.lower()]["location"] == "northeurope"


def test_image_that_is_wanted_elsewhere_is_refused_before_anything_is_made(cloud, make_uploader):
    before = cloud.remaining()
    with pytest.raises(TargetDataError, match=r"location is northeurope, but storage account .* is in westeurope"):
        make_uploader(is_by_blob=True, location="northeurope").run()
    assert cloud.remaining() == before


def test_disk_is_made_where_the_image_is_wanted(cloud, make_uploader):
    result = make_uploader(location="northeurope").run()
    assert cloud.account.resources[result.id.lower()]["location"] == "northeurope"


def test_container_is_made_if_it_lacks_and_stays(cloud, make_uploader):
    cloud.storage.containers.clear()
    uploader = make_uploader(is_by_blob=True)
    result = uploader.run()
    assert cloud.storage.containers == {cloud.account.container}
    assert [thing.kind for thing in result.objects] == ["image", "container"]


def test_container_is_made_once_though_the_answer_is_lost(cloud, make_uploader):
    cloud.storage.containers.clear()
    cloud.faults.replace([{"action": "CreateContainer", "first": 1, "lose_answer": True}])
    assert [thing.kind for thing in make_uploader(is_by_blob=True).run().objects] == ["image", "container"]


def test_container_that_was_made_goes_with_a_failed_upload(cloud, make_uploader):
    cloud.storage.containers.clear()
    cloud.faults.replace([{"action": "PutPage", "code": "InvalidInput", "status": 400}])
    with pytest.raises(PlatformReplyError):
        make_uploader(is_by_blob=True).run()
    assert cloud.remaining() == []


def test_gallery_gets_a_version(cloud, make_uploader):
    definition = cloud.define_image("my_gallery", "suse", hyperVGeneration="V2", architecture="Arm64")
    uploader = make_uploader(
        gallery="my_gallery",
        gallery_image="suse",
        gallery_version="1.0.20261129",
        regions=["northeurope"],
        exclude_from_latest=True,
        end_of_life="2027-12-31",
        facts={"architectures": ("arm64",)},
    )
    result = uploader.run()
    assert result.id == f"{definition}/versions/1.0.20261129"
    profile = cloud.account.resources[result.id.lower()]["properties"]["publishingProfile"]
    assert [region["name"] for region in profile["targetRegions"]] == ["westeurope", "northeurope"]
    assert profile["excludeFromLatest"] is True
    assert profile["endOfLifeDate"] == "2027-12-31T00:00:00Z"
    assert uploader.content(result.id)[0].startswith(uploader.disk)


@METHODS
def test_gallery_gets_a_version_by_both_methods(cloud, make_uploader, is_by_blob):
    cloud.define_image("g", "d", hyperVGeneration="V1")
    values = {"gallery": "g", "gallery_image": "d", "gallery_version": "1.0.0"}
    uploader = make_uploader(is_by_blob=is_by_blob, **values)
    assert uploader.content(uploader.run().id)[0].startswith(uploader.disk)


def in_gallery(cloud, **values):
    """Target data of a version in the gallery of another resource group."""
    account = cloud.account
    names = {"gallery": account.gallery, "gallery_image": "bios", "gallery_version": "1.0.0"}
    return {"gallery_resource_group": account.gallery_group, **names, **values}


@METHODS
def test_gallery_may_be_in_another_resource_group(cloud, make_uploader, is_by_blob):
    uploader = make_uploader(is_by_blob=is_by_blob, **in_gallery(cloud))
    result = uploader.run()
    assert f"/resourceGroups/{cloud.account.gallery_group}/providers" in result.id
    assert uploader.content(result.id)[0].startswith(uploader.disk)
    found = list(uploader.platform.find(uploader.context(), uploader.request.journal.key))
    assert [each.object.id for each in found] == [result.id]


def test_version_that_is_there_is_replicated_to_the_regions_that_it_lacks(cloud, make_uploader):
    uploader = make_uploader(**in_gallery(cloud))
    result = uploader.run()
    targets = cloud.account.resources[result.id.lower()]["properties"]["publishingProfile"]["targetRegions"]
    targets[0]["name"] = "West Europe"  # as people read it
    uploader.request.targetdata["regions"] = ["westeurope", "northeurope"]
    ctx = UploadContext(uploader.platform, uploader.request, uploader.reporter, Cancel(), clock=FakeClock())
    assert list(uploader.platform.plan(ctx))[1:] == ["replicate it to northeurope"]
    again = uploader.run()
    assert (again.id, again.is_already_there) == (result.id, True)
    profile = cloud.account.resources[result.id.lower()]["properties"]["publishingProfile"]
    assert [region["name"] for region in profile["targetRegions"]] == ["West Europe", "northeurope"]
    assert cloud.actions().count("versions/PUT") == 2
    uploader.run()
    assert cloud.actions().count("versions/PUT") == 2


def test_definition_for_other_images_is_refused_before_anything_is_made(cloud, make_uploader):
    cloud.define_image("g", "d", hyperVGeneration="V1")
    values = {"gallery": "g", "gallery_image": "d", "gallery_version": "1.0.0"}
    before = cloud.remaining()
    with pytest.raises(TargetDataError, match="hyperVGeneration is V1"):
        make_uploader(**values, facts={"boots_uefi": True}).run()
    assert cloud.remaining() == before
    assert "disks/PUT" not in str(cloud.record.calls())


def test_definition_that_is_not_there_is_named(make_uploader):
    values = {"gallery": "g", "gallery_image": "d", "gallery_version": "1.0.0"}
    with pytest.raises(NotFoundError, match="no image definition d in gallery g"):
        make_uploader(**values).run()


def test_arm64_without_a_gallery_is_refused_before_anything_is_made(cloud, make_uploader):
    before = cloud.remaining()
    with pytest.raises(ImageError, match="arm64"):
        make_uploader(facts={"architectures": ("arm64",)}).run()
    assert cloud.remaining() == before


def test_same_image_again_is_there_already(cloud, make_uploader):
    uploader = make_uploader()
    first = uploader.run()
    cloud.forget_calls()
    again = uploader.run()
    assert (again.id, again.is_already_there) == (first.id, True)
    assert "PutPage" not in cloud.actions()


def test_another_image_of_that_name_stays(cloud, make_uploader):
    uploader = make_uploader()
    first = uploader.run()
    disk = uploader.disk
    uploader.put(b"another" + disk[7:])
    with pytest.raises(PlatformReplyError, match="another image of that name"):
        uploader.run()
    assert uploader.content(first.id)[0].startswith(disk)


@METHODS
def test_killed_upload_goes_on_with_what_was_confirmed(cloud, make_uploader, is_by_blob):
    uploader = make_uploader(is_by_blob=is_by_blob, settings={"connections": "1"})
    cloud.faults.replace([{"action": "PutPage", "nth": 2, "code": "InvalidInput", "status": 400}])
    with pytest.raises(PlatformReplyError):
        uploader.run_until_killed()
    cloud.faults.replace([])
    cloud.forget_calls()
    result = uploader.run()
    assert cloud.actions().count("PutPage") == 2  # the third, and the footer
    assert uploader.content(result.id)[0].startswith(uploader.disk)
    assert [name for name in cloud.remaining() if "clouduploader-0" in name] == []


@METHODS
def test_pages_that_the_service_has_lost_are_sent_again(cloud, make_uploader, is_by_blob):
    uploader = make_uploader(is_by_blob=is_by_blob, settings={"connections": "1"})
    cloud.faults.replace([{"action": "PutPage", "nth": 2, "code": "InvalidInput", "status": 400}])
    with pytest.raises(PlatformReplyError):
        uploader.run_until_killed()
    cloud.faults.replace([])
    cloud.staged_file().clear(0, 4 * MIB)
    result = uploader.run()
    assert uploader.content(result.id)[0].startswith(uploader.disk)


@METHODS
def test_image_that_was_replaced_after_a_kill_is_sent_anew(cloud, make_uploader, is_by_blob):
    uploader = make_uploader(is_by_blob=is_by_blob, settings={"connections": "1"})
    cloud.faults.replace([{"action": "PutPage", "nth": 2, "code": "InvalidInput", "status": 400}])
    with pytest.raises(PlatformReplyError):
        uploader.run_until_killed()
    cloud.faults.replace([])
    uploader.put(b"other" + uploader.disk[5:])
    result = uploader.run()
    assert uploader.content(result.id)[0].startswith(uploader.disk)


def test_stale_page_of_an_earlier_try_is_cleared(cloud, make_uploader):
    uploader = make_uploader(settings={"connections": "1"})
    cloud.faults.replace([{"action": "PutPage", "nth": 2, "code": "InvalidInput", "status": 400}])
    with pytest.raises(PlatformReplyError):
        uploader.run_until_killed()
    cloud.faults.replace([])
    cloud.staged_file().write(4 * MIB, b"unconfirmed".ljust(512, b"\0"))
    result = uploader.run()
    assert uploader.content(result.id)[0] == uploader.disk.ljust(20 * MIB, b"\0")


@METHODS
@pytest.mark.parametrize("action", ["images/PUT", "GetPageRanges", "PutPage", "Token"])
def test_answer_that_was_lost_is_asked_for_again(cloud, make_uploader, is_by_blob, action):
    uploader = make_uploader(is_by_blob=is_by_blob)
    cloud.faults.replace([{"action": action, "first": 1, "lose_answer": True}])
    result = uploader.run()
    assert uploader.content(result.id)[0].startswith(uploader.disk)
    assert [name for name in cloud.remaining() if "clouduploader-0" in name] == []


@pytest.mark.parametrize("action", ["disks/PUT", "beginGetAccess/POST", "endGetAccess/POST", "PutBlob", "DeleteBlob"])
def test_lost_answer_about_a_stage_leaves_nothing(cloud, make_uploader, action):
    uploader = make_uploader(is_by_blob="Blob" in action)
    before = set(cloud.remaining())
    cloud.faults.replace([{"action": action, "first": 1, "lose_answer": True}])
    result = uploader.run()
    assert set(cloud.remaining()) - before == {result.id.lower()}


@METHODS
def test_throttling_passes(cloud, make_uploader, is_by_blob):
    storage = [{"action": name, "first": 2, "code": "ServerBusy", "status": 503} for name in ("PutBlob", "PutPage")]
    manager = [
        {"action": name, "first": 2, "code": "TooManyRequests", "status": 429} for name in ("disks/PUT", "images/PUT")
    ]
    cloud.faults.replace([*storage, *manager])
    make_uploader(is_by_blob=is_by_blob).run()


@METHODS
def test_token_that_expires_meanwhile_is_renewed(cloud, make_uploader, is_by_blob):
    uploader = make_uploader(is_by_blob=is_by_blob)
    uploader.platform.upload = expiring(uploader, cloud)
    result = uploader.run()
    assert cloud.actions().count("Token") > (2 if is_by_blob else 1)
    assert uploader.content(result.id)[0].startswith(uploader.disk)


def expiring(uploader, cloud):
    """`upload`, in which all tokens expire as soon as something was made."""
    begun = uploader.platform.upload

    def run(ctx):
        def expire(event):
            if type(event).__name__ == "ObjectCreated":
                cloud.account.expire()

        ctx.reporter.on_event = expire
        return begun(ctx)

    return run


def test_address_of_a_disk_that_expires_meanwhile_is_renewed(cloud, make_uploader):
    uploader = make_uploader()
    begun = uploader.platform.upload

    def run(ctx):
        def expire(event):
            if cloud.actions().count("beginGetAccess/POST") == 1 and "PutPage" in cloud.actions():
                cloud.account.signatures.clear()

        ctx.reporter.on_event = expire
        return begun(ctx)

    uploader.platform.upload = run
    result = uploader.run()
    assert cloud.actions().count("beginGetAccess/POST") == 2
    assert uploader.content(result.id)[0].startswith(uploader.disk)


def test_address_of_a_disk_that_was_never_good_is_no_matter_of_time(cloud, make_uploader):
    cloud.faults.replace([{"action": "PutPage", "status": 403, "code": "AuthenticationFailed"}])
    with pytest.raises(DeniedError):
        make_uploader().run()
    assert cloud.actions().count("beginGetAccess/POST") == 1


@pytest.mark.parametrize("is_by_hand", [True, False])
def test_credentials_of_the_environment_are_for_uploads_by_hand(cloud, make_uploader, monkeypatch, is_by_hand):
    account = cloud.account
    none = dict.fromkeys(("tenant", "application_id", "application_key"))
    uploader = make_uploader(**none)
    uploader.request = dataclasses.replace(uploader.request, is_by_hand=is_by_hand)
    monkeypatch.setenv("AZURE_TENANT_ID", account.tenant)
    monkeypatch.setenv("AZURE_CLIENT_ID", account.application_id)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", account.application_key)
    if is_by_hand:
        result = uploader.run()
        assert uploader.content(result.id)[0].startswith(uploader.disk)
    else:
        with pytest.raises(TargetDataError, match="no application configured"):
            uploader.run()
        assert "Token" not in cloud.actions()


@pytest.mark.parametrize("is_trusted", [True, False])
def test_token_of_a_workload_goes_to_the_own_cloud(cloud, make_uploader, monkeypatch, tmp_path, is_trusted):
    uploader = make_uploader(**dict.fromkeys(("tenant", "application_id", "application_key")))
    uploader.request = dataclasses.replace(uploader.request, is_by_hand=True)
    head = base64.urlsafe_b64encode(json.dumps({"x5t": "of the provider"}).encode()).decode()
    (tmp_path / "token").write_text(f"{head}.claims.signature")
    cloud.account.certificates = {"of the provider"} if is_trusted else set()
    monkeypatch.setenv("AZURE_TENANT_ID", cloud.account.tenant)
    monkeypatch.setenv("AZURE_CLIENT_ID", cloud.account.application_id)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    with contextlib.nullcontext() if is_trusted else pytest.raises(CredentialsError, match="AADSTS700027"):
        result = uploader.run()
        assert uploader.content(result.id)[0].startswith(uploader.disk)


def test_secret_that_is_wrong_is_no_matter_of_time(cloud, make_uploader):
    with pytest.raises(CredentialsError, match="AADSTS7000215") as caught:
        make_uploader(application_key="not the secret").run()
    assert "not the secret" not in f"{caught.value!r}{caught.value.__cause__!r}"
    assert cloud.actions().count("Token") == 1


def test_address_of_a_disk_is_in_no_line_and_no_error(cloud, make_uploader):
    uploader = make_uploader()
    cloud.faults.replace([{"action": "PutPage", "after": 1, "cut_request_bytes": 10}])
    with pytest.raises(ClouduploaderError) as caught:
        uploader.run()
    told = f"{uploader.reporter.lines}{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"
    assert "sig=" not in told
    assert "sig=" not in json.dumps([dict(entry) for entry in uploader.request.journal.entries()])


def test_token_is_not_sent_to_an_address_without_tls(cloud, make_uploader, monkeypatch):
    monkeypatch.setattr(cloud.account, "blob_endpoint", "http://127.0.0.1:9/")
    with pytest.raises(PlatformReplyError, match="others could read the token"):
        make_uploader(is_by_blob=True).run()


def test_secret_is_not_sent_to_an_address_without_tls(cloud, make_uploader, monkeypatch):
    monkeypatch.setattr(cloud.servers.manager, "login", "http://127.0.0.1:9")
    with pytest.raises(PlatformReplyError, match="others could read the secret"):
        make_uploader().run()


def test_several_subscriptions_must_be_chosen_from(cloud, make_uploader):
    cloud.account.other_subscriptions = ["11111111-2222-3333-4444-555555555555"]
    with pytest.raises(TargetDataError, match="2 subscriptions") as caught:
        make_uploader().run()
    assert cloud.account.subscription in caught.value.hint


def test_subscription_that_is_chosen_is_taken(cloud, make_uploader):
    cloud.account.other_subscriptions = ["11111111-2222-3333-4444-555555555555"]
    assert make_uploader(subscription_id=cloud.account.subscription).run().id


def test_verify_reads_all_pages_back(cloud, make_uploader):
    uploader = make_uploader(verify=True)
    uploader.run()
    assert cloud.actions().count("GetBlob") == 2
    assert any("Verified: 2 pages" in line for line in uploader.reporter.lines)


def test_page_that_reads_back_otherwise_makes_no_image(cloud, make_uploader):
    uploader = make_uploader(verify=True)
    uploader.platform.upload = at_phase(uploader, "verify", lambda: cloud.staged_file().write(0, b"x" * 512))
    with pytest.raises(PlatformReplyError, match="page 0 is not what was sent"):
        uploader.run()
    assert [name for name in cloud.remaining() if "/images/" in name] == []


def at_phase(uploader, phase, act):
    """`upload`, in which something happens when a phase begins."""
    begun = uploader.platform.upload

    def run(ctx):
        def take(event):
            if getattr(event, "phase", "") == phase:
                act()

        ctx.reporter.on_event = take
        return begun(ctx)

    return run


def test_image_that_azure_can_not_make_is_not_left_behind(cloud, make_uploader):
    uploader = make_uploader()
    before = set(cloud.remaining())
    uploader.platform.upload = at_phase(
        uploader, "make image", lambda: cloud.staged_file().write(20 * MIB, b"no footer".ljust(512, b"\0"))
    )
    with pytest.raises(PlatformReplyError, match="InvalidVhd"):
        uploader.run()
    assert set(cloud.remaining()) == before


def test_image_that_can_not_be_looked_at_is_not_left_behind(cloud, make_uploader):
    uploader = make_uploader()
    before = set(cloud.remaining())
    cloud.faults.replace([{"action": "images/GET", "nth": 2, "code": "AuthorizationFailed", "status": 403}])
    with pytest.raises(DeniedError):
        uploader.run()
    assert set(cloud.remaining()) == before


def test_image_that_another_upload_made_meanwhile_is_not_undone(cloud, make_uploader):
    uploader = make_uploader()
    thing_id = f"{cloud.account.group_id}/providers/Microsoft.Compute/images/my-image"
    others = {
        "id": thing_id,
        "location": "westeurope",
        "tags": {"clouduploader:key": "f" * 32},
        "properties": {"provisioningState": "Succeeded"},
    }
    uploader.platform.upload = at_phase(
        uploader, "make image", lambda: cloud.account.resources.update({thing_id.lower(): others})
    )
    cloud.faults.replace([{"action": "images/PUT", "code": "InternalServerError", "status": 500}])
    with pytest.raises(TransientError):
        uploader.run()
    assert cloud.account.resources[thing_id.lower()] is others


@pytest.mark.parametrize("values", [{}, {"gallery": "g", "gallery_image": "d", "gallery_version": "1.0.0"}], ids=str)
def test_name_that_another_upload_took_meanwhile_is_no_success(cloud, make_uploader, values):
    cloud.define_image("g", "d", hyperVGeneration="V1")
    uploader = make_uploader(**values)
    thing_id = uploader.run().id.lower()
    others = cloud.account.resources.pop(thing_id)
    others["tags"]["clouduploader:key"] = "f" * 32
    uploader.platform.upload = at_phase(
        uploader, "make image", lambda: cloud.account.resources.update({thing_id: others})
    )
    with pytest.raises(PlatformReplyError, match="PropertyChangeNotAllowed"):
        uploader.run()
    assert cloud.account.resources[thing_id] is others


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("provisioningState", "Failed", "another image of that name"),
        ("hyperVGeneration", "V2", "has hyperVGeneration V2, though V1 was asked for"),
    ],
)
def test_image_of_another_upload_is_not_the_same_for_its_content_alone(cloud, make_uploader, name, value, words):
    uploader = make_uploader()
    first = uploader.run()
    image = cloud.account.resources[first.id.lower()]
    image["tags"]["clouduploader:key"] = "f" * 32
    image["properties"][name] = value
    with pytest.raises(PlatformReplyError, match=words) as caught:
        uploader.run()
    assert "Choose another name" in caught.value.hint
    assert first.id.lower() in cloud.remaining()


def test_packed_image_of_another_size_than_thought_is_sent_anew(cloud, make_uploader):
    thought = 21 * MIB
    uploader = make_uploader(
        facts={"compression": Compression.XZ, "size_bytes": thought, "is_size_exact": False, "file_bytes": 1000}
    )
    result = uploader.run()
    assert any(line.startswith("Starting anew") for line in uploader.reporter.lines)
    assert uploader.content(result.id)[0] == uploader.disk.ljust(20 * MIB, b"\0")


def test_image_that_azure_can_not_use_is_its_words(cloud, make_uploader):
    cloud.account.image_quota = 0
    with pytest.raises(PlatformReplyError, match="QuotaExceeded"):
        make_uploader().run()


def test_plan_says_what_would_be_done(cloud, make_uploader):
    uploader = make_uploader()
    from clouduploader.plugin import UploadContext
    from clouduploader.plugin.testing import FakeClock

    ctx = UploadContext(uploader.platform, uploader.request, uploader.reporter, Cancel(), clock=FakeClock())
    steps = list(uploader.platform.plan(ctx))
    assert "a fixed VHD of 20972032 bytes to a managed disk in westeurope" in steps[0]
    assert "V1, x86_64" in steps[1]
