"""An upload into an Ec2Cloud: the request for it, its context, and a run as the core makes it."""

import contextlib
import dataclasses

from fakes.ec2_cloud import BLOCK, REGION, FakeAccount

from clouduploader.model.disk import Compression, Image, ImageFacts
from clouduploader.platforms.ec2 import Ec2
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import PlatformContext, UploadContext, testing
from clouduploader.plugin.cleanup import undone_on_failure
from clouduploader.util.cancel import Cancel

GIB = 1 << 30


def make_facts(**changes):
    """Facts of an image for x86_64 that boots both ways."""
    facts = {
        "disk_format": "raw",
        "size_bytes": 3 * BLOCK,
        "is_size_exact": True,
        "partition_table": "gpt",
        "minimum_bytes": 1,
        "architectures": ("x86_64",),
        "boots_uefi": True,
        "boots_bios": True,
    }
    return ImageFacts(**{**facts, **changes})


def make_request(directory, *, raw=b"", facts=None, journal=None, arch="x86_64", **targetdata):
    """A request for an image of these bytes."""
    work_dir = directory / "work"
    work_dir.mkdir(exist_ok=True)
    facts = facts or make_facts(size_bytes=len(raw))
    request = testing.make_request(
        Image(directory / "42.file", "a.raw.zst", Compression.ZSTD, 1000),
        {"region": REGION, "ami_name": "my image", "arn": FakeAccount.role_arn, **targetdata},
        work_dir,
    )
    return dataclasses.replace(
        request,
        arch=arch,
        measure_image=lambda **_how: len(raw),
        inspect_image=lambda: facts,
        open_blocks=lambda *how: contextlib.nullcontext(testing.MemoryBlocks(raw, *how)),
        journal=journal or testing.MemoryJournal(directory / "journal"),
    )


def upload_context(request, reporter, cancel=None, clock=None):
    """The context of an upload by EC2, in which a sleep takes no time."""
    platform = Ec2(PlatformContext(home=request.work_dir, settings={}, environment={}))
    return UploadContext(platform, request, reporter, cancel or Cancel(), clock=clock or testing.FakeClock())


def make_context(cloud, request, reporter, cancel=None, clock=None, *, settings=None):
    """What the steps of an upload into that account share; a sleep takes no time, and blocks go one after the other."""
    ctx = upload_context(request, reporter, cancel, clock)
    ctx.client = FakeAccount(cloud)
    cloud.now = ctx.clock.monotonic
    return Ec2Context(ctx, settings or Ec2Settings(connections=1, blocks_per_second=100_000))


def undone(ctx, run):
    """A function that runs as the core does: what a failed upload made is removed again."""

    def upload():
        with undone_on_failure(ctx._platform, ctx):
            return run()

    return upload
