import pytest

from clouduploader.errors import AbsentError, ConfigError, CredentialsError
from clouduploader.plugin import CloudObject, Level, ObjectState

KEY = "0123456789abcdef" * 2
TAGS = ("clouduploader", f"clouduploader:key={KEY}", "clouduploader:job=42")


def find(make_context, key=None, region=None):
    ctx = make_context(region)
    return list(ctx._platform.find(ctx, key))


def check(ctx):
    return list(ctx._platform.check(ctx))


def test_unknown_method_is_refused(make_platform):
    with pytest.raises(ConfigError, match=r"setting 'method' in .openstack. of clouduploader.conf is 'post'"):
        make_platform(method="post")


def test_image_that_can_be_used_is_kept(make_context, cloud):
    image = cloud.add_image(tags=TAGS)
    (found,) = find(make_context)
    assert found.object == CloudObject("image", image["id"], "RegionOne")
    assert (found.key, found.job_name, found.state) == (KEY, "42", ObjectState.READY)
    assert found.keep_reason == "an image that can be used"
    assert found.created.tzinfo


@pytest.mark.parametrize("status", ["queued", "saving", "uploading", "importing", "killed"])
def test_unfinished_image_is_a_leftover(make_context, cloud, status):
    cloud.add_image(tags=TAGS, status=status)
    (found,) = find(make_context, KEY)
    assert (found.keep_reason, found.state) == (None, ObjectState.PARTIAL)


def test_images_are_those_of_the_project_the_region_and_the_upload(make_context, cloud):
    ours = [cloud.add_image(tags=TAGS)["id"] for _ in range(5)]  # of three pages
    cloud.add_image(tags=TAGS, owner="other")
    cloud.add_image(tags=["clouduploader"])
    two = cloud.add_image("RegionTwo", tags=TAGS)
    other = cloud.add_image(tags=["clouduploader", "clouduploader:key=other"])
    assert [found.object.id for found in find(make_context, KEY)] == ours
    assert {found.object.id for found in find(make_context)} == {*ours, other["id"]}
    assert [found.object.id for found in find(make_context, KEY, "RegionTwo")] == [two["id"]]


def test_image_is_removed_from_its_region(make_context, cloud):
    image = cloud.add_image("RegionTwo")
    ctx = make_context()
    thing = CloudObject("image", image["id"], "RegionTwo")
    assert ctx._platform.clean_up(ctx, [thing]).removed == (thing,)
    assert cloud.all_images() == {}
    with pytest.raises(AbsentError):
        ctx._platform.remove(ctx, thing)


def test_check_lists_clouds_and_tries_the_credential(make_context, tmp_path):
    (tmp_path / "clouds.yaml").write_text("clouds: {mine: {auth: {auth_url: 'https://mine/v3'}}}")
    findings = check(make_context())
    assert [finding.level for finding in findings] == [Level.OK] * 3
    assert findings[0].message == "clouds: mine (https://mine/v3)"
    assert findings[1].message.startswith("lets us in: project tom-project")
    assert findings[2].subject == "region RegionOne"


def test_check_tells_what_is_wrong(make_context, tmp_path):
    (found,) = (item for item in check(make_context(application_credential_secret="other")) if item.level != Level.OK)
    assert found.level is Level.FAILURE
    assert "requires authentication" in found.message
    (tmp_path / "clouds.yaml").write_text("clouds: [")
    (found,) = check(make_context())
    assert found.level is Level.FAILURE


def test_credential_of_no_project_is_refused(make_context, cloud):
    cloud.project = None
    with pytest.raises(CredentialsError, match="of no project"):
        find(make_context)
