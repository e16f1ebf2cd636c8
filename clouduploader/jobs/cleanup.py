"""Remove what uploads left in the cloud and could not remove themselves.

What belongs to an upload that died is known by its journal, and by the labels of the objects themselves; where the
journal is lost, by the labels alone.
"""

import contextlib
import dataclasses
import datetime
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from clouduploader.errors import ClouduploaderError, JobFileError, LocalIOError, LockedError, MissingFileError
from clouduploader.model import job_xml
from clouduploader.plugin import (
    CleanUpReport,
    CloudObject,
    Context,
    FoundObject,
    JsonValue,
    Leftover,
    ObjectRemoved,
    ObjectState,
    Platform,
    visibility,
)
from clouduploader.store import job_log, journal, keyring, target_data
from clouduploader.store.config import Config
from clouduploader.store.spool import leases
from clouduploader.store.spool.paths import SpoolPaths
from clouduploader.uploads import registry
from clouduploader.uploads.journaling import JournalWriter
from clouduploader.util import wall_clock
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

LABELS_ONLY_AGE = datetime.timedelta(days=1)
"""Without a journal it can't be told whether the upload still lives, on another machine; few take a day."""
UNSEEN_IMAGE = "not found by its tags; if it is there, it can be used"


@frozen(kw_only=True)
class CleanupScope:
    """What is looked for.

    Attributes:
        target: Only what uploads to this platform left, also by labels; None for all platforms, by journals alone.
        regions: Only there; empty for wherever journals lead.
        targetdata: The fields that name the account that is looked through by labels.
        older_than: Only what is older; None for any age by journal, and LABELS_ONLY_AGE by labels alone.
        is_complete_too: Whether what only another try could use is a leftover too.
        job: Only what the upload of this job left, by its journal; None for all.
    """

    target: str | None = None
    regions: tuple[str, ...] = ()
    targetdata: Mapping[str, JsonValue] = dataclasses.field(default_factory=dict, repr=False)
    older_than: datetime.timedelta | None = None
    is_complete_too: bool = False
    job: str | None = None


@frozen()
class FoundItem:
    """One object in the cloud.

    Attributes:
        object: Which one; without an id if it was asked for, and may be there and not show yet.
        job: The job's id, or None.
        created: When; None if that is not known.
        cause: Why it was left, for example "its upload died".
        keep_reason: Why it is not removed, or None.
    """

    object: CloudObject
    job: str | None
    created: datetime.datetime | None
    cause: str
    keep_reason: str | None

    @property
    def is_unseen(self) -> bool:
        """Whether it is not known yet what became of it: another clean-up has to look again."""
        return not self.object.id


@frozen()
class UploadLeftovers:
    """What one upload left in the cloud.

    Attributes:
        key: Of its journal; "" if its labels had none.
        contents: Its journal; None if that is lost.
        items: What there is, as far as it could be looked for and is within the scope.
        is_whole: Whether there is nothing outside the scope.
        error: Why nothing can be done about it, or None.
        platform: Which can; None only with an error.
        values: The target data.
        is_by_hand: See Context: where the caller names the account, or the upload was by hand.
    """

    key: str
    contents: journal.JournalContents | None
    items: tuple[FoundItem, ...]
    is_whole: bool = False
    error: ClouduploaderError | None = None
    platform: Platform | None = dataclasses.field(default=None, repr=False)
    values: Mapping[str, JsonValue] = dataclasses.field(default_factory=dict, repr=False)
    is_by_hand: bool = True

    @property
    def to_remove(self) -> tuple[CloudObject, ...]:
        """The objects that would be removed."""
        return tuple(item.object for item in self.items if item.keep_reason is None)


@frozen()
class CleanupContext:
    """What `look` and `remove` need.

    Attributes:
        config: The settings.
        log: Told what is done.
        load_platform: Gives the platform of a target.
    """

    config: Config
    log: job_log.JobLog
    load_platform: Callable[[str, Config], Platform] = registry.load

    def values(self, data: bytes, platform: Platform) -> Mapping[str, JsonValue]:
        """Read target data, and hide their secrets.

        Raises:
            TargetDataError: They are wrong, or can't be decrypted any more.
        """
        config = self.config
        found = target_data.read(data, platform, keyring.Keyring(config.home.value, config.environment))
        for secret in found.secrets:
            self.log.hide(secret)
        return found.values


def look(context: CleanupContext, scope: CleanupScope) -> list[UploadLeftovers]:
    """Look for what is left. Changes nothing; uses the network where there is something to look for.

    Raises:
        ClouduploaderError: The account of `scope` can't be looked through, there is no such platform, or the clock
            can't tell what is older than `scope` says.
    """
    state_dir = context.config.state.value
    batches = [
        _by_journal(context, scope, found)
        for found in journal.read_open(state_dir)
        if _is_in_scope(context, found, scope)
    ]
    if scope.job is None and scope.target is not None:
        platform = context.load_platform(scope.target, context.config)
        journals = {contents.key: contents for contents in journal.read_all(state_dir)}
        batches += _by_labels(context, scope, platform, journals)
    return batches


def remove(context: CleanupContext, batches: Sequence[UploadLeftovers]) -> Iterator[CleanUpReport]:
    """Remove what is left, and close the journals of uploads that left nothing.

    Args:
        context: See CleanupContext.
        batches: From `look`.

    Yields:
        For each batch what became of those that were not to be kept.
    """
    for batch in batches:
        try:
            yield _remove_batch(context, batch)
        except ClouduploaderError as exc:
            left = [item.object for item in batch.items if item.keep_reason is None or item.is_unseen]
            yield CleanUpReport(left=tuple(Leftover(thing, exc.message) for thing in left))


def examine(
    platform: Platform,
    values: Mapping[str, JsonValue],
    contents: journal.JournalContents,
    log: job_log.JobLog,
    *,
    is_complete_too: bool,
    is_by_hand: bool,
) -> list[FoundItem]:
    """Find out what there is of an upload, by its journal and its labels.

    Args:
        platform: The upload's.
        values: Its target data.
        contents: Its journal.
        log: Told what is done.
        is_complete_too: See CleanupScope.
        is_by_hand: See Context.

    Raises:
        ClouduploaderError: It can't be looked for.
    """
    state, delivered = contents.state, contents.state.delivered
    regions = [str(values.get("region") or ""), *(thing.region for thing in state.objects)]
    regions += [str(entry.get("region") or "") for entry in state.asked]
    found: dict[CloudObject, FoundObject] = {}
    for region in dict.fromkeys(regions):
        ctx = Context(
            platform,
            in_region(values, region),
            log,
            Cancel(),
            entries=contents.entries,
            is_by_hand=is_by_hand,
        )
        found.update((item.object, item) for item in platform.find(ctx, contents.key) if item.object not in delivered)
    return [
        *_items_of(contents, unseen_by=found),
        *(_item(item, _cause(contents), is_complete_too) for item in found.values()),
        *_unseen(contents, found),
    ]


def remove_things(
    platform: Platform,
    values: Mapping[str, JsonValue],
    things: Sequence[CloudObject],
    made: Mapping[CloudObject, journal.Entry],
    log: job_log.JobLog,
    *,
    key: str,
    is_by_hand: bool,
) -> CleanUpReport:
    """Remove what belongs to one upload; what the cloud does not show is gone only once it is old enough to show.

    Args:
        platform: The upload's.
        values: Its target data.
        things: Which ones.
        made: What its journal says of their making, see `JournalState.objects`.
        log: Told what is done.
        key: Of its journal; "" if that is not known.
        is_by_hand: See Context.

    Returns:
        What was removed, and what is left; nothing is `absent` any more.

    Raises:
        ClouduploaderError: Nothing can be removed.
    """
    report = platform.clean_up(Context(platform, values, log, Cancel(), key=key, is_by_hand=is_by_hand), things)
    removed, left = list(report.removed), list(report.left)
    for thing in report.absent:
        seconds = visibility.seconds_left(made.get(thing, {}))
        if seconds:
            left.append(Leftover(thing, not_yet(seconds)))
        else:
            removed.append(thing)
            log.event(ObjectRemoved(thing))
    return CleanUpReport(tuple(removed), tuple(left))


def not_yet(seconds: float) -> str:
    """Return why something counts as left that the cloud does not show."""
    return f"not visible yet: the cloud may show it within {math.ceil(seconds)} seconds; clean up again after that"


def in_region(values: Mapping[str, JsonValue], region: str) -> Mapping[str, JsonValue]:
    """Return the target data for another region; the same for a platform without regions."""
    return {**values, "region": region} if region else values


def _is_in_scope(context: CleanupContext, contents: journal.JournalContents, scope: CleanupScope) -> bool:
    began = contents.state.began
    if not began or scope.target not in (None, began.get("target")):
        return False
    if scope.job is None:
        is_meant = not contents.is_live and _host_of(context, contents) is None
    else:
        is_meant = began.get("job") == scope.job
    return is_meant and _is_old(contents.changed, scope.older_than or datetime.timedelta())


def _host_of(context: CleanupContext, contents: journal.JournalContents) -> str | None:
    """Return which host of a cluster has the job of a journal, also while there is no server that has it locked."""
    job = (contents.state.began or {}).get("job")
    if not isinstance(job, str) or not job_xml.NAME.fullmatch(job):
        return None
    with contextlib.suppress(JobFileError, LocalIOError):
        record = leases.read(SpoolPaths(context.config.spool.value), job)
        return record.host if record else None
    return None


def _is_old(moment: datetime.datetime | None, age: datetime.timedelta) -> bool:
    """Tell whether something is at least so old; of any age if it is not known when it was made.

    Raises:
        ConfigError: The clock can't tell.
    """
    if moment is None or not age:
        return True
    wall_clock.check(moment)
    return datetime.datetime.now(datetime.UTC) - moment >= age


def _by_journal(context: CleanupContext, scope: CleanupScope, contents: journal.JournalContents) -> UploadLeftovers:
    """Look for what an upload that died left, by its journal."""
    if contents.is_live:  # of a job that is asked for by name: to say that nothing is left would be wrong
        error = LockedError("its upload lives, or is being cleaned up")
        return UploadLeftovers(contents.key, contents, (), error=error)
    if host := _host_of(context, contents):
        error = LockedError(f"the upload host {host} may work on it, though the server that gave it the job has ended")
        return UploadLeftovers(contents.key, contents, (), error=error)
    try:
        platform = context.load_platform(str((contents.state.began or {}).get("target")), context.config)
        data = contents.targetdata()
        values = _values(context, scope, contents, platform, data)
        is_by_hand = contents.state.is_by_hand or data is None
        items = examine(
            platform,
            values,
            contents,
            context.log,
            is_complete_too=scope.is_complete_too,
            is_by_hand=is_by_hand,
        )
    except ClouduploaderError as exc:
        return UploadLeftovers(contents.key, contents, tuple(_items_of(contents, unseen_by={})), error=exc)
    within = tuple(item for item in items if not scope.regions or item.object.region in scope.regions)
    is_whole = len(within) == len(items)
    return UploadLeftovers(contents.key, contents, within, is_whole, None, platform, values, is_by_hand)


def _values(
    context: CleanupContext,
    scope: CleanupScope,
    contents: journal.JournalContents,
    platform: Platform,
    data: bytes | None,
) -> Mapping[str, JsonValue]:
    """Return the target data that the journal kept, or else those that were given."""
    if data is not None:
        return context.values(data, platform)
    if scope.targetdata:
        return scope.targetdata
    raise MissingFileError(
        f"the target data in {contents.directory} are gone", hint="Name target, account and region by options."
    )


def _regions_to_search(platform: Platform, scope: CleanupScope) -> tuple[str, ...]:
    """Return the regions to look through by labels, "" for a platform without regions.

    There are none if the scope does not say which account and region that would be.
    """
    if any(field.name == "region" for field in platform.fields):
        region = scope.targetdata.get("region")
        return scope.regions or ((str(region),) if region else ())
    has_accounts = any(field.is_of_account for field in platform.fields)
    return ("",) if scope.targetdata or not has_accounts else ()


def _by_labels(
    context: CleanupContext,
    scope: CleanupScope,
    platform: Platform,
    journals: Mapping[str, journal.JournalContents],
) -> list[UploadLeftovers]:
    """Look for what uploads left whose journals are lost, or do not know of it."""
    age = LABELS_ONLY_AGE if scope.older_than is None else scope.older_than
    delivered = {thing for contents in journals.values() for thing in contents.state.delivered}
    by_key: dict[str, list[FoundObject]] = {}
    for region in _regions_to_search(platform, scope):
        ctx = Context(platform, in_region(scope.targetdata, region), context.log, Cancel())
        for found in platform.find(ctx, None):
            contents = journals.get(found.key)
            is_seen_to = contents and (contents.is_live or contents.state.is_open)
            if not is_seen_to and found.object not in delivered:
                by_key.setdefault(found.key, []).append(found)
    batches = []
    for key, group in by_key.items():
        newest = max((found.created for found in group if found.created), default=None)
        if _is_old(newest, age):
            items = [_item(found, "its journal is not here", scope.is_complete_too) for found in group]
            batches.append(
                UploadLeftovers(key, journals.get(key), tuple(items), True, None, platform, scope.targetdata)
            )
    return batches


def _items_of(contents: journal.JournalContents, unseen_by: Mapping[CloudObject, FoundObject]) -> list[FoundItem]:
    """Return what the journal tells of and the search by labels did not see.

    It may be gone, or bear no labels because the account does not allow any.
    """
    began = contents.state.began or {}
    job = began.get("job")
    return [
        FoundItem(
            thing,
            str(job) if job else None,
            visibility.time_of(entry),
            _cause(contents),
            UNSEEN_IMAGE if thing.kind == "image" else None,
        )
        for thing, entry in contents.state.objects.items()
        if thing not in unseen_by
    ]


def _unseen(contents: journal.JournalContents, found: Collection[CloudObject]) -> list[FoundItem]:
    """Return what was asked for without an answer, so recently that the cloud may have made it and not show it yet."""
    answered = Counter((thing.kind, thing.region) for thing in found if thing not in contents.state.objects)
    job = (contents.state.began or {}).get("job")
    items = []
    for entry in contents.state.asked:
        thing = CloudObject(str(entry.get("kind")), "", str(entry.get("region") or ""))
        if answered[thing.kind, thing.region] > 0:
            answered[thing.kind, thing.region] -= 1
        elif seconds := visibility.seconds_left(entry):
            moment = visibility.time_of(entry)
            items.append(FoundItem(thing, str(job) if job else None, moment, _cause(contents), not_yet(seconds)))
    return items


def _cause(contents: journal.JournalContents) -> str:
    end = contents.state.end
    return f"its upload {end.get('outcome')}" if end else "its upload died"


def _item(found: FoundObject, cause: str, is_complete_too: bool) -> FoundItem:
    keep_reason = None if found.state is ObjectState.COMPLETE and is_complete_too else found.keep_reason
    if keep_reason and found.job_name:
        keep_reason = keep_reason.replace("JOB", found.job_name)
    return FoundItem(found.object, found.job_name or None, found.created, cause, keep_reason)


def unseen(items: Sequence[FoundItem]) -> tuple[Leftover, ...]:
    """Return what has to be looked for again."""
    return tuple(Leftover(item.object, item.keep_reason or "") for item in items if item.is_unseen)


def adopt(opened: journal.UploadJournal, items: Sequence[FoundItem]) -> None:
    """Write into a journal what was found by its labels, and is the answer to a request of which none came.

    Raises:
        LocalIOError: It can't be written.
    """
    known = opened.state().objects
    for item in items:
        if item.object not in known and not item.is_unseen:
            opened.write("made", **journal.fields_of(item.object))


def _remove_batch(context: CleanupContext, batch: UploadLeftovers) -> CleanUpReport:
    """Remove what one upload left, under its journal's lock where there is one."""
    if batch.error or batch.platform is None:
        reason = batch.error.message if batch.error else "its platform is not there"
        return CleanUpReport(left=tuple(Leftover(thing, reason) for thing in batch.to_remove))
    if batch.contents is None:
        return remove_things(
            batch.platform, batch.values, batch.to_remove, {}, context.log, key=batch.key, is_by_hand=batch.is_by_hand
        )
    with journal.open_journal(batch.contents.directory.parent, batch.key) as opened:
        if opened.state() != batch.contents.state:
            raise LockedError("its upload was tried again meanwhile")
        if batch.contents.state.is_open:  # one that is closed has no target data any more, and stays found by labels
            adopt(opened, batch.items)
        report = CleanUpReport()
        with context.log.listening(JournalWriter(opened, context.log).take):
            if batch.to_remove:
                made = opened.state().objects
                report = remove_things(
                    batch.platform,
                    batch.values,
                    batch.to_remove,
                    made,
                    context.log,
                    key=batch.key,
                    is_by_hand=batch.is_by_hand,
                )
        is_kept = any(item.keep_reason for item in batch.items)
        if batch.contents.state.is_open and batch.is_whole and not report.left and not is_kept:
            opened.end(journal.AttemptOutcome.CLEANED)
    return CleanUpReport(report.removed, (*report.left, *unseen(batch.items)))
