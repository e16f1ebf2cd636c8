"""The base of all platforms."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from clouduploader.model.disk import Image
from clouduploader.plugin.events import Reporter
from clouduploader.plugin.fields import Field, JsonValue
from clouduploader.plugin.objects import CleanUpReport, CloudObject, FoundObject
from clouduploader.plugin.request import UploadRequest
from clouduploader.plugin.results import Finding, Plan, UploadResult
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen


@frozen()
class PlatformContext:
    """What a platform is made from.

    Attributes:
        home: The home of clouduploader, `/etc/obs/cloudupload` by default.
        settings: The section of `clouduploader.conf` that bears the platform's name.
        environment: The environment variables; use this instead of os.environ.
    """

    home: Path
    settings: Mapping[str, str]
    environment: Mapping[str, str] = dataclasses.field(repr=False)


class Platform(Protocol):
    """What can upload an image to one kind of cloud.

    Making one is cheap and touches nothing: slow imports, files and the network wait for the
    first call that needs them. One object serves one job.

    Attributes:
        fields: The keys of its target data. Whether an image that does not look like a disk is refused, is said by
            a boolean one called `force`, if there is one.

    A platform that starts no machine from an image, but stores files of any kind, has the attribute `needs_disk` with
    the value False: what shows nothing of a disk is uploaded with a warning then, and only what is known to be
    something else, such as a web page, is refused.
    """

    fields: Sequence[Field]

    def link_name(self, image: Image) -> str:
        """Say under which name the image must be presented to this platform's tools.

        Returns:
            A base name without slash; often `image.filename`. Must not depend on anything but
            the argument.

        Raises:
            ImageError: This platform can't take such an image.
        """

    def problems(self, targetdata: Mapping[str, JsonValue]) -> list[str]:
        """Check what no single field can tell: rules between fields, what the settings allow.

        Args:
            targetdata: Already valid field by field. Not necessarily decrypted.

        Returns:
            One line for each problem, empty if there is none. Never raises, no network.
        """

    def plan(self, request: UploadRequest, reporter: Reporter, cancel: Cancel) -> Plan:
        """Say what `upload` would do, having checked all that can be checked without a change.

        Called inside `stop.interruptible`.

        Raises:
            StoppedError: `cancel` was requested.
            ClouduploaderError: `upload` would fail with this.
        """

    def upload(self, request: UploadRequest, reporter: Reporter, cancel: Cancel) -> UploadResult:
        """Upload the image, and wait until it can be used. Blocks for minutes or hours.

        A failure or a stop leaves nothing in the cloud; what could not be removed is said in the
        log with its id. A TransientError may leave finished work for another try, which the log says too.

        Raises:
            StoppedError: `cancel` was requested; the clean-up is done.
            ClouduploaderError: It failed; the clean-up is done.
        """

    def clean_up(
        self,
        targetdata: Mapping[str, JsonValue],
        objects: Sequence[CloudObject],
        reporter: Reporter,
    ) -> CleanUpReport:
        """Remove what an upload left that could not do so itself. May be called again.

        Args:
            targetdata: Of that job, as for `upload`.
            objects: As the job's log has them. Nothing else is touched but what belongs to them.
            reporter: Told of each removal.

        Raises:
            ClouduploaderError: Nothing could be tried, for example for lack of credentials.
        """

    def find(self, targetdata: Mapping[str, JsonValue], key: str | None, reporter: Reporter) -> Sequence[FoundObject]:
        """Look for what uploads made in this account and region, by the tags they put on it.

        Args:
            targetdata: Says which account and region; need not be complete enough for an upload.
            key: Only of this upload, see UploadJournal; None for all.
            reporter: Told what is done.

        Returns:
            What `clean_up` can remove, and what it must not (`keep_reason`).

        Raises:
            ClouduploaderError: Nothing could be looked for.
        """

    def check(self, targetdata: Mapping[str, JsonValue] | None, region: str | None) -> Iterable[Finding]:
        """Look whether all is in place for a first job. Changes nothing; uses the network.

        Args:
            targetdata: Of a job that is to come, to try its rights too; or None.
            region: Look at this one only; None for all that are configured.

        Returns:
            The findings, one by one as they are made. Never raises for what it finds.
        """
