"""The platform of an installed package that does what a test wants."""

import stat
from pathlib import Path

from clouduploader.plugin import CloudObject, Field, Platform, PlatformContext, UploadResult


class MadeUpPlatform(Platform):
    """A platform that notes what it is asked for, and does in `upload` what the test wants."""

    fields = (
        Field(name="filename", description="The real name."),
        Field(name="password", description="A secret.", is_secret=True),
    )

    def __init__(self):
        super().__init__(PlatformContext(home=Path("/"), settings={}, environment={}))
        self.request = None
        self.seen = {}
        self.work = lambda request, reporter, cancel: UploadResult("ami-1", (CloudObject("image", "ami-1"),))
        self.plan_work = lambda cancel: None

    def link_name(self, image):
        return f"linked-{image.filename}"

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
        raise NotImplementedError
