"""A platform whose cloud fails as a test says."""

from clouduploader.errors import TransientError
from clouduploader.plugin import Platform, PlatformContext, UploadResult


class SdkError(Exception):
    """What the SDK of the cloud raises."""


class ScriptedPlatform(Platform):
    """A platform whose `remove` does what `script` says for an id: exceptions to raise, the first first."""

    removal_order = ("machine", "disk")

    def __init__(self):
        super().__init__(PlatformContext(home=None, settings={}, environment={}))
        self.script = {}
        self.removed = []
        self.connected = 0

    def connect(self, ctx):
        self.connected += 1
        if "connect" in self.script:
            raise self.script["connect"]
        return object()

    def translate(self, exc, subject):
        return TransientError(f"{subject}: {exc}") if isinstance(exc, SdkError) else None

    def upload(self, ctx):
        return UploadResult("x")

    def remove(self, ctx, thing):
        if self.script.get(thing.id):
            raise self.script[thing.id].pop(0)
        self.removed.append(thing.id)
