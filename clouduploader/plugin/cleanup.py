"""Remove what uploads left: the order, the tries, what could not be removed and why."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from clouduploader.errors import AbsentError, ClouduploaderError
from clouduploader.plugin import retry
from clouduploader.plugin.context import Context, UploadContext
from clouduploader.plugin.events import ObjectRemoved, PhaseStarted
from clouduploader.plugin.objects import CleanUpReport, CloudObject, Leftover

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
    return remove_each(ctx, objects, lambda thing: platform.remove(ctx, thing), order=platform.removal_order)


def remove_each(
    ctx: Context,
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
        What became of each.
    """
    ranks = {kind: index for index, kind in enumerate(order)}
    removed, left, absent = [], [], []
    for thing in sorted(objects, key=lambda thing: ranks.get(thing.kind, len(ranks))):
        try:
            ctx.retry(functools.partial(remove, thing), seconds=seconds, may_pass=may_pass)
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
            for leftover in _leftovers(platform, ctx.uncancelled(), things):
                thing = leftover.object
                ctx.reporter.line(f"Warning: the {thing.kind} {thing.id} could not be removed: {leftover.reason}")
        raise


def _leftovers(platform: "Platform", ctx: Context, things: Sequence[CloudObject]) -> Sequence[Leftover]:
    """Remove things; return what is left, all of it if nothing can be tried."""
    try:
        return platform.clean_up(ctx, things).left
    except ClouduploaderError as exc:
        return [Leftover(thing, exc.message) for thing in things]
