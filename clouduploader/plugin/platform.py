"""The base of all platforms."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from clouduploader.errors import ClouduploaderError, ConfigError
from clouduploader.model.disk import Image
from clouduploader.plugin import cleanup
from clouduploader.plugin.capabilities import Accounts, Hints
from clouduploader.plugin.context import Context, UploadContext
from clouduploader.plugin.fields import Field, JsonValue
from clouduploader.plugin.objects import CleanUpReport, CloudObject, FoundObject
from clouduploader.plugin.results import Cost, Finding, UploadResult
from clouduploader.util.frozen import frozen


@frozen()
class PlatformContext:
    """What a platform is made from.

    Attributes:
        home: The home of clouduploader, `/etc/obs/cloudupload` by default.
        settings: The section of `clouduploader.conf` that bears the platform's name.
        environment: The environment variables; use this instead of os.environ.
        target: The name that the platform answers to.
    """

    home: Path
    settings: Mapping[str, str]
    environment: Mapping[str, str] = dataclasses.field(repr=False)
    target: str = ""


@frozen(kw_only=True)
class HomeFile:
    """A file in the home that a platform reads.

    Attributes:
        path: Below the home, such as `.mycloud/credentials`.
        description: A sentence for people, such as "The helper image of each region."
        is_secret: Whether other users of the host must not read it: who uploads is warned, and `check` finds it.
    """

    path: str
    description: str
    is_secret: bool = False


class Platform(ABC):
    """What uploads an image to one kind of cloud. A plugin derives from it, and its entry point names the class.

    Making one is cheap and touches nothing: slow imports, files and the network wait for the first call that needs
    them. One object serves one job.

    Args:
        context: What it is made from.

    Attributes:
        description: What it makes of an image, and what its result is: a sentence for people.
        files: The files in the home that it reads.
        fields: The keys of its target data. Whether an image that does not look like a disk is refused, is said by
            a boolean one called `force`, if there is one.
        settings_defaults: The names of its settings, the keys of its section of `clouduploader.conf`, with defaults.
        requirement: What pip installs its SDK by, such as "clouduploader[mycloud]"; "" if it needs nothing more.
        needs_disk: False for a platform that starts no machine from an image, but stores files of any kind: what
            shows nothing of a disk is uploaded with a warning then, and only what is known to be something else, such
            as a web page, is refused.
        needs_account: False for a platform of which the service's jobs can do without an account of their user, though
            there may be one.
        needs_whole_file: False for a platform that reads the image by its context alone, and awaits the file (see
            UploadRequest) before it opens its path: on an upload host the upload begins while the image still comes.
        removal_order: Kinds of its objects in the order in which they can be removed; others come last.
        accounts: What it does with its users' accounts, or None; see Accounts.
        hints: What it can tell a person about the values of its fields, or None; see Hints.
        settings: Its settings, defaults included.
        home: The home of clouduploader.
        environment: The environment variables; use this instead of os.environ.

    Raises:
        ConfigError: A setting is not known.
    """

    description: ClassVar[str] = ""
    files: ClassVar[Sequence[HomeFile]] = ()
    fields: ClassVar[Sequence[Field]] = ()
    settings_defaults: ClassVar[Mapping[str, str]] = {}
    requirement: ClassVar[str] = ""
    needs_disk: ClassVar[bool] = True
    needs_account: ClassVar[bool] = True
    needs_whole_file: ClassVar[bool] = True
    removal_order: ClassVar[Sequence[str]] = ()
    accounts: Accounts | None = None
    hints: Hints | None = None

    def __init__(self, context: PlatformContext) -> None:
        for name in context.settings:
            if name not in self.settings_defaults:
                raise ConfigError(
                    f"unknown setting '{name}' in [{context.target}] of clouduploader.conf",
                    hint=f"Known are: {', '.join(self.settings_defaults) or 'none'}.",
                )
        self.settings: Mapping[str, str] = {**self.settings_defaults, **context.settings}
        self.home = context.home
        self.environment = context.environment

    def link_name(self, image: Image) -> str:
        """Say under which name the image must be presented to this platform's tools.

        Returns:
            A base name without slash. Must not depend on anything but the argument.

        Raises:
            ImageError: This platform can't take such an image.
        """
        return image.filename

    def problems(self, targetdata: Mapping[str, JsonValue]) -> list[str]:
        """Check what no single field can tell: rules between fields, what the settings allow.

        Args:
            targetdata: Already valid field by field. Not necessarily decrypted.

        Returns:
            One line for each problem, empty if there is none. Never raises, no network.
        """
        return []

    def connect(self, ctx: Context) -> Any:  # noqa: ANN401 each cloud has its own
        """Make the client that `ctx.client` gives; called once for each context, when first needed.

        A platform that can do with the caller's own credentials calls `ctx.require_credential` first.

        Raises:
            ModuleNotFoundError: The SDK is not installed; see `requirement`.
            Exception: Whatever the SDK raises; it goes through `translate`.
        """
        return None

    def translate(self, exc: Exception, subject: str) -> ClouduploaderError | None:
        """Turn an error of the platform's SDK into one of ours; see `errors.http_error`.

        Args:
            exc: What was raised; an error of ours too.
            subject: What was worked on.

        Returns:
            The error of ours; None if it is not one of the SDK's, which then goes on as it is.
        """
        return None

    def plan(self, ctx: UploadContext) -> Iterable[str | Cost]:
        """Say what `upload` would do, having checked all that can be checked without a change.

        Called inside `cancel.interruptible`.

        Returns:
            The steps, a line each before which "would" can stand, and what the cloud charges.

        Raises:
            StoppedError: The upload was cancelled.
            ClouduploaderError: `upload` would fail with this.
        """
        return ()

    @abstractmethod
    def upload(self, ctx: UploadContext) -> UploadResult:
        """Upload the image, and wait until it can be used. Blocks for minutes or hours.

        What was made through `ctx.creating` is removed by the caller if this raises. Other things a failure or a
        cancellation must not leave either; what could not be removed is said in the log with its id. A
        TransientError may leave finished work for another try (`ctx.resources.keep`), which the log says too.

        Raises:
            StoppedError: The upload was cancelled.
            ClouduploaderError: It failed.
        """

    @abstractmethod
    def remove(self, ctx: Context, thing: CloudObject) -> None:
        """Remove one thing that an upload made; called again while it raises TransientError.

        What bears a name that users choose may be another upload's by now, and stays then: its labels tell, beside
        `ctx.key`.

        Raises:
            AbsentError: The cloud does not show it: it is gone, or too young to show.
            ForeignError: What bears the name is another upload's.
            ClouduploaderError: It can't be removed.
        """

    def clean_up(self, ctx: Context, objects: Sequence[CloudObject]) -> CleanUpReport:
        """Remove things that an upload left; see `cleanup.remove_all`. May be called again.

        Args:
            ctx: With the target data of that job.
            objects: As the job's log has them. Nothing else is touched but what belongs to them.

        Raises:
            ClouduploaderError: Nothing could be tried, for example for lack of credentials.
        """
        return cleanup.remove_all(self, ctx, objects)

    def find(self, ctx: Context, key: str | None) -> Iterable[FoundObject]:
        """Look for what uploads made in this account and region, by the labels they put on it.

        Args:
            ctx: Says which account and region; its target data need not be complete enough for an upload. A platform
                without a field `region` is asked once for an account.
            key: Only of this upload, see Journal; None for all.

        Returns:
            What `clean_up` can remove, and what it must not (`keep_reason`).

        Raises:
            ClouduploaderError: Nothing could be looked for.
        """
        return ()

    def check(self, ctx: Context) -> Iterable[Finding]:
        """Look whether all is in place for a first job. Changes nothing; uses the network.

        Args:
            ctx: With the target data of a job that is to come, to try its rights too, or without any; where it has
                a region, only that one is looked at.

        Returns:
            The findings, one by one as they are made. Never raises for what it finds.
        """
        return ()
