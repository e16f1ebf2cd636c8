"""Platforms that do what a test says, and packages that bring platforms along."""

import stat
from pathlib import Path

from clouduploader.errors import TransientError
from clouduploader.plugin import CloudObject, Platform, PlatformContext, UploadResult


class SdkError(Exception):
    """What the SDK of the cloud raises."""


class FakePlatform(Platform):
    """A platform without a cloud, in which all that a test does not say succeeds.

    Args:
        fields: Of the target data.

    Attributes:
        connections: The target data of each connection.
        plan_work: Called by `plan`, with the cancel.
        removed: The ids of what was removed.
        request: That of the last upload; None before.
        script: What is raised: by an object's id a list with the error of each of its removals, the first first; for
            "connect" the error of each connection.
        seen: What the last upload found of its image.
        work: Called by `upload`, with request, reporter and cancel; gives the result.
    """

    removal_order = ("machine", "disk")

    def __init__(self, *fields):
        super().__init__(PlatformContext(home=Path("/"), settings={}, environment={}))
        self.fields = fields
        self.connections, self.removed = [], []
        self.request, self.seen, self.script = None, {}, {}
        self.plan_work = lambda cancel: None
        self.work = lambda request, reporter, cancel: UploadResult("ami-1", (CloudObject("image", "ami-1"),))

    def link_name(self, image):
        return f"linked-{image.filename}"

    def connect(self, ctx):
        self.connections.append(dict(ctx.targetdata))
        ctx.reporter.line(f"connecting with {ctx.targetdata}")
        if "connect" in self.script:
            raise self.script["connect"]
        return object()

    def translate(self, exc, subject):
        return TransientError(f"{subject}: {exc}") if isinstance(exc, SdkError) else None

    def plan(self, ctx):
        self.plan_work(ctx.cancel)
        return [f"upload {ctx.request.image.path.name}"]

    def upload(self, ctx):
        request = self.request = ctx.request
        self.seen = {
            "content": request.image.path.read_bytes(),
            "is_link": request.image.path.is_symlink(),
            "mode": stat.S_IMODE(request.work_dir.stat().st_mode),
            "work_dir": sorted(path.name for path in request.work_dir.iterdir()),
        }
        return self.work(request, ctx.reporter, ctx.cancel)

    def remove(self, ctx, thing):
        assert ctx.client
        if self.script.get(thing.id):
            raise self.script[thing.id].pop(0)
        self.removed.append(thing.id)


def install_package(site, name, code=None, *, version="1.0", ending=".dist-info", **platforms):
    """Install a package that offers platforms, as pip would.

    Args:
        site: A directory on the path of Python's modules.
        name: Of the package, and of its only module.
        code: Of the module; None for no module.
        version: Of the package.
        ending: Of the directory in which its metadata are.
        platforms: References by name, as `cloud_of_a:create`.
    """
    info = site / f"{name}-{version}{ending}"
    info.mkdir(parents=True)
    metadata = "METADATA" if ending == ".dist-info" else "PKG-INFO"
    (info / metadata).write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = "".join(f"{target} = {reference}\n" for target, reference in platforms.items())
    (info / "entry_points.txt").write_text(f"[other]\nx = y:z\n[clouduploader.platforms]\n{lines}")
    if code is not None:
        (site / f"{name}.py").write_text(code)
