"""`clouduploader image`: what is in an image file."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clouduploader.cli import output, uploading
from clouduploader.cli.options import ImageFile, json_option, pass_session
from clouduploader.cli.session import Session
from clouduploader.errors import ExitCode, UsageError
from clouduploader.store import config, job_log
from clouduploader.util import signals
from clouduploader.util.cancel import Cancel

if TYPE_CHECKING:
    from clouduploader.admin.image import ImageInspection


@click.command("image")
@click.argument("file", type=ImageFile())
@click.option("--quick", is_flag=True, help="Look at the beginning only: no digests, no counting, and damage may hide.")
@click.option("--force", is_flag=True, help="Warn of what `upload --force` would pass over, and go on.")
@click.option("--max-size", metavar="SIZE", help="The most it may have unpacked, such as 100G.  [max_size; 1T]")
@json_option
@pass_session
def image_command(session: Session, /, *, file: Path, quick: bool, force: bool, max_size: str | None) -> int:
    """Show what is in the image FILE, and whether it is whole.

    Its packing and format, its size, partitions and boot loaders; then, by reading it once to its end, the
    digests, and how many blocks of 512 KiB each mode of zero_blocks sends. A FILE.sha256 and a FILE.bmap beside
    it are checked. A damaged image, or one that is cut off or no disk, is an error; with --force the
    latter two are warnings.

    With --json the data are file, packing, tarball, file_bytes, disk_format, size_bytes, size_exact,
    partition_table, minimum_bytes, architectures, boot_mode (uefi-preferred, uefi, legacy-bios or null), boots_uefi
    and boots_bios (null if not known), warnings, promised_sha256, bmap, file_sha256, raw_sha256, and blocks:
    {data, zero, hole, sent: {MODE: N}}. The last three are null with --quick, raw_sha256 also for a qcow2, VMDK
    or VHD with more than 16 GiB of holes.
    """
    from clouduploader.admin import image as admin_image

    cancel = Cancel()
    signals.listen(cancel)
    log = job_log.JobLog(uploading.sinks(session), is_verbose=session.is_verbose)
    with contextlib.ExitStack() as views:
        if sys.stderr.isatty() and not session.is_verbose and not session.is_quiet:
            from clouduploader.cli import progress

            log.listen(views.enter_context(progress.ProgressView()))
        found = admin_image.inspect_image(
            file,
            max_size_bytes=_max_size(session, max_size),
            is_whole=not quick,
            is_forced=force,
            reporter=log,
            cancel=cancel,
        )
    for warning in found.facts.warnings:
        output.warn(session, warning)
    document = _document(found)
    if session.is_json:
        output.print_json(session, document)
    else:
        output.print_fields(_fields(found, document))
    return ExitCode.OK


def _max_size(session: Session, given: str | None) -> int:
    if given is None:
        return session.config.max_size.value
    try:
        return config.parse_size(given)
    except ValueError as exc:
        raise UsageError(f"--max-size {exc}") from exc


def _document(found: "ImageInspection") -> dict[str, Any]:
    from clouduploader.admin import image as admin_image

    image, facts, stats = found.image, found.facts, found.stats
    return {
        "file": image.filename,
        "packing": image.compression,
        "tarball": image.is_tarball,
        "file_bytes": image.size_bytes,
        "disk_format": facts.disk_format,
        "size_bytes": facts.size_bytes,
        "size_exact": facts.is_size_exact,
        "partition_table": facts.partition_table,
        "minimum_bytes": facts.minimum_bytes,
        "architectures": list(facts.architectures),
        "boot_mode": facts.boot_mode,
        "boots_uefi": facts.boots_uefi,
        "boots_bios": facts.boots_bios,
        "warnings": list(facts.warnings),
        "promised_sha256": found.promised_sha256,
        "bmap": str(found.bmap_path) if found.bmap_path else None,
        "file_sha256": stats and stats.file_sha256,
        "raw_sha256": stats and stats.raw_sha256,
        "blocks": stats
        and {
            "data": stats.data_blocks,
            "zero": stats.zero_blocks,
            "hole": stats.hole_blocks,
            "sent": {mode: count for mode, (count, _) in admin_image.left_out(stats).items()},
        },
    }


def _fields(found: "ImageInspection", document: dict[str, Any]) -> list[tuple[str, object]]:
    """Return the same for people: what is not known is said, what does not apply is left out."""
    from clouduploader.admin import image as admin_image

    facts, stats = found.facts, found.stats
    inside = ", a tarball" if found.image.is_tarball else ""
    size: object = "not known before it is unpacked"
    if facts.size_bytes is not None:
        size = facts.size_bytes if facts.is_size_exact else f"about {facts.size_bytes}"
    promise = document["promised_sha256"]
    pairs: list[tuple[str, object]] = [
        ("file", document["file"]),
        ("packing", f"{document['packing']}{inside}"),
        ("file bytes", document["file_bytes"]),
        ("disk format", document["disk_format"]),
        ("size bytes", size),
        ("partition table", document["partition_table"] or "none"),
        ("minimum bytes", document["minimum_bytes"]),
        ("architectures", ", ".join(facts.architectures) or "unknown"),
        ("boot mode", facts.boot_mode or "unknown"),
        ("promised sha256", f"{promise}, {'kept' if stats else 'not checked'}" if promise else "none"),
        ("bmap", document["bmap"] or "none"),
    ]
    if stats:
        pairs += [
            ("file sha256", stats.file_sha256),
            ("raw sha256", stats.raw_sha256 or "not made: it would take long, for all of the holes"),
            ("blocks", f"{stats.data_blocks} data, {stats.zero_blocks} zeros, {stats.hole_blocks} holes"),
        ]
        pairs += [
            (f"zero_blocks={mode}", f"{sent} sent, {left} left out")
            for mode, (sent, left) in admin_image.left_out(stats).items()
        ]
    return pairs
