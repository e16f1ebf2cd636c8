import json
import shlex

import pytest
from fakes.google_cloud import BUCKET, EMAIL, PROJECT

from clouduploader.errors import DataError, DeniedError, TransientError
from clouduploader.platforms.gce import rights
from clouduploader.platforms.gce.accounts import ServiceAccounts
from clouduploader.plugin import CloudObject, Context, Level
from clouduploader.plugin.testing import FakeClock, RecordingReporter
from clouduploader.util.cancel import Cancel


@pytest.fixture
def accounts(uploads):
    return uploads().platform.accounts


def guide(accounts, extras=(), **values):
    return accounts.guide(values, extras=extras, reporter=RecordingReporter())


def test_guide_names_what_is_known(accounts, google):
    assert guide(accounts).facts == {
        "service_account": "clouduploader@PROJECT.iam.gserviceaccount.com",
        "project": "PROJECT",
        "bucket": "BUCKET",
    }
    found = guide(accounts, credentials=google.key, bucket=BUCKET)
    assert found.facts == {"service_account": EMAIL, "project": PROJECT, "bucket": BUCKET}
    assert "private_key" not in repr(found)


def test_roles_have_what_uploads_need_and_no_more(accounts):
    plain, wide = guide(accounts), guide(accounts, extras=("share", "deprecate"))
    assert plain.policies["archives"]["includedPermissions"] == list(rights.ON_BUCKET)
    assert plain.policies["images"]["includedPermissions"] == list(rights.ON_PROJECT)
    more = set(wide.policies["images"]["includedPermissions"]) - set(rights.ON_PROJECT)
    assert more == {one for extra in rights.EXTRAS.values() for one in extra}


def test_commands_make_all_of_it(accounts):
    lines = [
        shlex.split(line)
        for line in guide(accounts, project="my-project", bucket="my-bucket").scripts["commands"].splitlines()
    ]
    assert {tuple(line[:3]) for line in lines} == {("gcloud", "--project", "my-project")}
    assert lines[-1][3:6] == ["iam", "service-accounts", "keys"]
    roles = [line[line.index("--role") + 1] for line in lines if "--role" in line]
    assert roles == ["projects/my-project/roles/clouduploaderArchives", "projects/my-project/roles/clouduploaderImages"]


def verify(accounts, google, **values):
    chosen = {"credentials": google.key, "bucket": BUCKET, **values}
    return accounts.verify({name: text for name, text in chosen.items() if text}, reporter=RecordingReporter())


def test_account_with_just_the_rights_is_usable(accounts, google):
    found = verify(accounts, google)
    assert (found.is_usable, found.is_open) == (True, False)
    assert {finding.level for finding in found.findings} == {Level.OK}


def test_rights_that_are_too_wide_are_named(accounts, google):
    google.site.identity.rights = {
        "bucket": (*rights.ON_BUCKET, "storage.buckets.setIamPolicy"),
        "project": (*rights.ON_PROJECT, "compute.instances.create"),
    }
    found = verify(accounts, google)
    assert found.is_usable
    warnings = [finding.message for finding in found.findings if finding.level is Level.WARNING]
    assert ["storage.buckets.setIamPolicy" in warnings[0], "compute.instances.create" in warnings[1]] == [True, True]


@pytest.mark.parametrize(
    "missing", [*rights.ON_BUCKET, *rights.ON_PROJECT], ids=lambda permission: permission.rpartition(".")[0]
)
def test_each_right_that_is_missing_is_named(accounts, google, missing):
    google.site.identity.rights = {
        where: [one for one in named if one != missing] for where, named in google.site.identity.rights.items()
    }
    found = verify(accounts, google)
    assert not found.is_usable
    assert any(missing in finding.message for finding in found.findings if finding.level is Level.FAILURE)


def test_key_that_is_not_taken_is_a_failure(accounts, google):
    other = json.dumps(json.loads(google.key) | {"client_email": "other@example.com"})
    found = verify(accounts, google, credentials=other)
    assert not found.is_usable
    assert "Google does not accept the credentials" in found.findings[0].message


def test_api_that_is_disabled_makes_it_unusable(accounts, google):
    google.faults.replace([{"action": "images.get", "code": "accessNotConfigured"}])
    found = verify(accounts, google)
    assert not found.is_usable
    assert "gcloud services enable" in found.findings[0].hint


def test_what_could_not_be_tried_is_an_error(google, uploads):
    google.faults.replace([{"action": "token", "status": 503}])
    platform = uploads().platform
    accounts = ServiceAccounts(
        lambda values, reporter: Context(platform, values, reporter, Cancel(), clock=FakeClock())
    )
    with pytest.raises(TransientError):
        verify(accounts, google)


@pytest.mark.parametrize("name", ["credentials", "bucket"])
def test_account_that_lacks_something_is_refused(accounts, google, name):
    with pytest.raises(DataError, match=f"the account has no {name} yet"):
        verify(accounts, google, **{name: ""})


def test_upload_needs_just_these_rights(google, uploads):
    google.site.identity.rights = {"bucket": rights.ON_BUCKET, "project": rights.ON_PROJECT}
    assert uploads().run().shortfalls == ()
    assert google.objects() == []


@pytest.mark.parametrize("extra", rights.EXTRAS)
def test_extra_needs_its_rights_besides(google, uploads, extra):
    data = {"share": {"share": ["user:ann@example.com"]}, "deprecate": {"family": "f", "deprecate_older": "OBSOLETE"}}
    uploads(image_name="older", family="f").run()
    google.site.identity.rights = {"bucket": rights.ON_BUCKET, "project": rights.ON_PROJECT}
    assert len(uploads(image_name="without", **data[extra]).run().shortfalls) == 1
    google.site.identity.rights = {
        "bucket": rights.ON_BUCKET,
        "project": (*rights.ON_PROJECT, *rights.EXTRAS[extra]),
    }
    assert uploads(image_name="with", **data[extra]).run().shortfalls == ()


def test_check_says_what_is_missing(google, uploads):
    made = uploads()
    assert {finding.level for finding in made.platform.check(made.context())} == {Level.OK}
    google.site.identity.rights = {"bucket": (), "project": rights.ON_PROJECT}
    assert [finding.level for finding in made.platform.check(made.context())] == [Level.FAILURE, Level.OK]
    made = uploads(bucket="no-such-bucket")
    assert "does not exist" in next(iter(made.platform.check(made.context()))).message


@pytest.mark.parametrize("missing", [*rights.ON_BUCKET, *rights.ON_PROJECT])
def test_each_right_is_needed_by_an_upload_or_its_clean_up(google, uploads, missing):
    google.site.identity.rights = {
        "bucket": [one for one in rights.ON_BUCKET if one != missing],
        "project": [one for one in rights.ON_PROJECT if one != missing],
    }
    made = uploads()
    refused = []
    try:
        made.run()
        list(made.platform.find(made.context(), None))
        made.platform.remove(made.context(), CloudObject("image", "my-image"))
    except DeniedError as exc:
        refused.append(exc)
    assert refused or google.objects()
