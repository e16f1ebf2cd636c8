"""Remove what uploads left: the order, the tries, what could not be removed and why."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from clouduploader.errors import AbsentError, ClouduploaderError
from clouduploader.plugin.context import Context, UploadContext
from clouduploader.plugin.events import ObjectRemoved, PhaseStarted
from clouduploader.plugin.objects import CleanUpReport, CloudObject, Leftover
from clouduploader.util.cancel import Cancel

if TYPE_CHECKING:
    from clouduploader.plugin.platform import Platform

REMOVAL_SECONDS = 120.0  # what is used by something that is just going is refused for as long as that takes


def remove_all(platform: "Platform", ctx: Context, objects: Sequence[CloudObject]) -> CleanUpReport:
    """Remove things one by one, in the platform's order; go on with the next if one can't be removed.

    Args:
        platform: Whose things they are.
        ctx: The account.
        objects: Which things.

    Returns:
        What became of each.
    """
    order = {kind: index for index, kind in enumerate(platform.removal_order)}
    removed, left, absent = [], [], []
    for thing in sorted(objects, key=lambda thing: order.get(thing.kind, len(order))):
        try:
            ctx.retry(lambda thing=thing: platform.remove(ctx, thing), seconds=REMOVAL_SECONDS)  # type: ignore[misc]
        except AbsentError:
            absent.append(thing)
        except ClouduploaderError as exc:
            left.append(Leftover(thing, exc.message))
        else:
            removed.append(thing)
            ctx.reporter.event(ObjectRemoved(thing))
    return CleanUpReport(tuple(removed), tuple(left), tuple(absent))


@contextlib.contextmanager
def undone_on_failure(platform: "Platform", ctx: UploadContext) -> Iterator[None]:
    """Remove what an upload made through `ctx.creating`, if it fails or is cancelled.

    What can't be removed is named in the log, and stays in the journal for `clouduploader cleanup`.
    """
    try:
        yield
    except BaseException:
        things = ctx.resources.to_undo()
        if things:
            ctx.reporter.event(PhaseStarted("clean up"))
            # the cancellation has been seen; the removal must not end by it
            after = Context(platform, ctx.targetdata, ctx.reporter, Cancel(), clock=ctx.clock, region=ctx.region)
            for leftover in _leftovers(platform, after, things):
                thing = leftover.object
                ctx.reporter.line(f"Warning: the {thing.kind} {thing.id} could not be removed: {leftover.reason}")
        raise


def _leftovers(platform: "Platform", ctx: Context, things: Sequence[CloudObject]) -> Sequence[Leftover]:
    """Remove things; return what is left, all of it if nothing can be tried."""
    try:
        return platform.clean_up(ctx, things).left
    except ClouduploaderError as exc:
        return [Leftover(thing, exc.message) for thing in things]
