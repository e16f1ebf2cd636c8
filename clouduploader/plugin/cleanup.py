"""Remove what uploads left: the order, the tries, what could not be removed and why."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from clouduploader.errors import AbsentError, ClouduploaderError, ForeignError
from clouduploader.plugin import retry, visibility
from clouduploader.plugin.events import ObjectRemoved, PhaseStarted
from clouduploader.plugin.objects import CleanUpReport, CloudObject, Leftover

if TYPE_CHECKING:
    from clouduploader.plugin.context import Context, UploadContext
    from clouduploader.plugin.platform import Platform

UNSEEN_PAUSE_SECONDS = 3.0  # between looks for what does not show yet
REMOVAL_SECONDS = 120.0  # what is used by something that is just going is refused for as long as that takes


def remove_all(platform: "Platform", ctx: "Context", objects: Sequence[CloudObject]) -> CleanUpReport:
    """Remove things one by one, in the platform's order; go on with the next if one can't be removed, and tell so.

    Args:
        platform: Whose things they are.
        ctx: The account.
        objects: Which things.

    Returns:
        What became of each.
    """
    return remove_each(ctx, objects, lambda thing: platform.remove(ctx, thing), order=platform.removal_order)


def remove_each(
    ctx: "Context",
    objects: Sequence[CloudObject],
    remove: Callable[[CloudObject], None],
    *,
    order: Sequence[str],
    seconds: float = REMOVAL_SECONDS,
    may_pass: Callable[[ClouduploaderError], bool] = retry.is_transient,
) -> CleanUpReport:
    """Remove things one by one; see `remove_all`, for a platform with a `clean_up` of its own.

    Args:
        ctx: The account.
        objects: Which things.
        remove: Removes one; see `Platform.remove`.
        order: Kinds in the order in which they are removed; others come last.
        seconds: For how long one thing is tried again.
        may_pass: Tells whether another try may help after an error.

    Returns:
        What became of each, but for what is another upload's.
    """

    def remove_ours(thing: CloudObject) -> None:
        ctx.ensure_ours()
        remove(thing)

    ranks = {kind: index for index, kind in enumerate(order)}
    removed, left, absent = [], [], []
    for thing in sorted(objects, key=lambda thing: ranks.get(thing.kind, len(ranks))):
        try:
            ctx.retry(functools.partial(remove_ours, thing), seconds=seconds, may_pass=may_pass)
        except AbsentError:
            absent.append(thing)
        except ForeignError as exc:
            ctx.reporter.line(f"Not removed: {exc.message}")
        except ClouduploaderError as exc:
            left.append(Leftover(thing, exc.message))
            _tell_left(ctx, thing, exc.message)
        else:
            removed.append(thing)
            ctx.reporter.event(ObjectRemoved(thing))
    return CleanUpReport(tuple(removed), tuple(left), tuple(absent))


@contextlib.contextmanager
def undone_on_failure(platform: "Platform", ctx: "UploadContext") -> Iterator[None]:
    """Remove what is in `ctx.resources`, if an upload fails or is cancelled; see `undo`.

    Raises:
        StoppedError: The upload was cancelled, if only while it was undone.
    """
    try:
        yield
    except BaseException:
        if things := ctx.resources.to_undo():
            ctx.reporter.event(PhaseStarted("clean up"))
            undo(platform, ctx, things)
        ctx.cancel.raise_if_requested()
        raise


def undo(platform: "Platform", ctx: "UploadContext", things: Sequence[CloudObject]) -> list[CloudObject]:
    """Remove things of an upload; wait for what the cloud does not show yet, unless the upload was cancelled.

    Blocks for minutes at worst; a cancellation does not end it. What can't be removed is named in the log, and stays in
    the journal for `clouduploader cleanup`. Nothing of it is undone again.

    Returns:
        What may be left.
    """
    for thing in things:
        ctx.resources.keep(thing)
    calm, left, unseen = ctx.uncancelled(), list[CloudObject](), list(things)
    try:
        while unseen:
            report = platform.clean_up(calm, unseen)
            left += [leftover.object for leftover in report.left]
            unseen = [thing for thing in report.absent if ctx.resources.age_seconds(thing) < visibility.UNSEEN_SECONDS]
            for thing in report.absent:
                if thing not in unseen:
                    ctx.reporter.event(ObjectRemoved(thing))
            if ctx.cancel.is_requested:
                break
            if unseen:
                ctx.clock.sleep(UNSEEN_PAUSE_SECONDS)
        reason = "the cloud does not show it, or not yet; `clouduploader cleanup` looks again."
    except ClouduploaderError as exc:
        reason = exc.message
    for thing in unseen:
        _tell_left(ctx, thing, reason)
    return left + unseen


def _tell_left(ctx: "Context", thing: CloudObject, reason: str) -> None:
    where = f" in {thing.region}" if thing.region else ""
    ctx.reporter.line(f"Left behind: {thing.kind} {thing.id}{where}: {reason}")
