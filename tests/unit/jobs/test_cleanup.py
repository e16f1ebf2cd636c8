"""Which accounts and regions are looked through for uploads whose journals are lost."""

import dataclasses

import pytest
from fakes.platforms import FakePlatform
from samples.journals import BEGINNING, KEY

from clouduploader.errors import TargetDataError
from clouduploader.jobs import cleanup
from clouduploader.plugin import CloudObject, Field, FoundObject
from clouduploader.store import config, job_log, journal
from clouduploader.store.spool import leases
from clouduploader.store.spool.leases import LeaseRecord, LeaseState
from clouduploader.store.spool.paths import SpoolPaths

USER = Field(name="user", description="Whose.", is_of_account=True)
REGION = Field(name="region", description="Where.")


class SearchablePlatform(FakePlatform):
    """A platform that finds a disk in each context in which it is asked to look."""

    def find(self, ctx, key):
        return [FoundObject(CloudObject("disk", "d", ctx.region), key or KEY, "", None, None)]


@pytest.fixture
def make_context(tmp_path):
    """Return a function that makes what a clean-up of a platform needs."""

    def make(platform):
        settings = config.load(home=tmp_path, spool=tmp_path, environment={})
        log = job_log.JobLog([], is_verbose=False)
        return cleanup.CleanupContext(settings, log, load_platform=lambda _target, _config: platform)

    return make


@pytest.fixture
def look(make_context):
    """Return a function that looks for leftovers without journals, and gives the regions in which they are."""

    def look(*fields, **scope):
        context = make_context(SearchablePlatform(*fields))
        batches = cleanup.look(context, cleanup.CleanupScope(**scope))
        return [item.object.region for batch in batches for item in batch.items]

    return look


@pytest.mark.parametrize(
    ("fields", "scope", "regions"),
    [
        ([REGION, USER], {"targetdata": {"user": "tom"}}, []),
        ([REGION, USER], {"targetdata": {"user": "tom", "region": "a"}}, ["a"]),
        ([REGION, USER], {"targetdata": {"user": "tom", "region": "a"}, "regions": ("b", "c")}, ["b", "c"]),
        ([USER], {}, []),
        ([USER], {"targetdata": {"user": "tom"}}, [""]),
        ([], {}, [""]),
    ],
)
def test_account_that_is_named_is_looked_through(look, fields, scope, regions):
    assert look(*fields, target="cloud", **scope) == regions


def test_without_target_or_with_a_job_only_journals_count(look):
    assert look(targetdata={"user": "tom"}) == []
    assert look(target="cloud", job="1") == []


def test_what_does_not_show_yet_is_left_where_another_process_has_the_journal(make_context):
    context = make_context(FakePlatform())
    state_dir = context.config.state.value
    with journal.open_journal(state_dir, KEY) as opened:
        opened.begin(BEGINNING, b"{}")
        opened.write("asked", kind="disk", region="")
    batches = cleanup.look(context, cleanup.CleanupScope())
    with journal.open_journal(state_dir, KEY):
        (report,) = cleanup.remove(context, batches)
    (leftover,) = report.left
    assert leftover.object == CloudObject("disk", "", "")
    assert "is being cleaned up" in leftover.reason


def test_upload_of_a_host_is_not_touched_while_there_is_no_server(make_context):
    context = make_context(FakePlatform())
    jobs = SpoolPaths(context.config.spool.value)
    with journal.open_journal(context.config.state.value, KEY) as opened:
        opened.begin(BEGINNING, b"{}")
        opened.write("made", kind="disk", id="d", region="")
    record = LeaseRecord(attempt=1, state=LeaseState.FREE, queue="uploads", since=1.0)
    claimed = dataclasses.replace(record, state=LeaseState.CLAIMED, host="h1", claim="0" * 64, journal=KEY)
    leases.write(jobs, BEGINNING.job, claimed)
    assert cleanup.look(context, cleanup.CleanupScope()) == []
    (batch,) = cleanup.look(context, cleanup.CleanupScope(job=BEGINNING.job))
    assert "the upload host h1 may work on it" in batch.error.message
    leases.write(jobs, BEGINNING.job, record)
    assert len(cleanup.look(context, cleanup.CleanupScope())) == 1
    jobs.lease_path(BEGINNING.job).write_text("{")
    assert len(cleanup.look(context, cleanup.CleanupScope())) == 1


def test_platform_is_told_whose_upload_left_what_it_removes(make_context):
    keys = []

    class RememberingPlatform(SearchablePlatform):
        def remove(self, ctx, thing):
            keys.append(ctx.key)

    context = make_context(RememberingPlatform())
    (report,) = cleanup.remove(context, cleanup.look(context, cleanup.CleanupScope(target="cloud")))
    assert report.removed == (CloudObject("disk", "d"),)
    assert keys == [KEY]


@pytest.mark.parametrize("is_by_hand", [True, False])
def test_job_without_credentials_is_not_cleaned_up_with_those_of_the_service(make_context, is_by_hand):
    class OwnPlatform(SearchablePlatform):
        def connect(self, ctx):
            ctx.require_credential("user", "there is no account", hint="Enter it.")
            return super().connect(ctx)

        def find(self, ctx, key):
            assert ctx.client
            return super().find(ctx, key)

    platform = OwnPlatform(USER)
    context = make_context(platform)
    with journal.open_journal(context.config.state.value, KEY) as opened:
        opened.begin(dataclasses.replace(BEGINNING, is_by_hand=is_by_hand), b"{}")
        opened.write("made", kind="disk", id="d", region="")
    batches = cleanup.look(context, cleanup.CleanupScope())
    (report,) = cleanup.remove(context, batches)
    if is_by_hand:
        assert platform.removed == ["d"]
    else:
        assert isinstance(batches[0].error, TargetDataError)
        assert (platform.connections, len(report.left)) == ([], 1)
