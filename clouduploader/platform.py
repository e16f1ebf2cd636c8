"""What a platform is: the words that clouduploader and a platform plugin speak with each other.

A plugin imports this module, `contents`, `errors` and `stop`, and nothing else of ours. It is named in the
entry-point group `clouduploader.platforms` by a function that takes a `PlatformContext` and
returns a `Platform`; it need not inherit from anything. `tests/contract/platform.py` checks
what is promised here.
"""

import dataclasses
import datetime
import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from clouduploader.contents import BlockSource, DiskFormat, ImageFacts, ZeroBlocks
from clouduploader.frozen import frozen
from clouduploader.stop import Stop

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class FieldKind(enum.StrEnum):
    """The JSON types a field of the target data can have; named as JSON Schema names them."""

    STRING = "string"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    OBJECT = "object"
    ARRAY = "array"


@frozen(kw_only=True)
class Field:
    """One key of a platform's target data. Check and JSON Schema are both made from it.

    Attributes:
        name: The key.
        description: One sentence for people, ends with a full stop.
        kind: The JSON type. An object maps strings to strings (tags); an array holds strings, each of which
            must fit `allowed`, `pattern` and the lengths.
        is_required: Whether it must be there and not be empty. Otherwise absent, null and ""
            mean the same.
        is_secret: Whether OBS sends it encrypted, and it must never be shown.
        is_of_account: Whether it is kept with the user's account (see Accounts), and not asked for at each
            upload; only a string can be. In clear it is one user's: no two accounts have the same value.
        allowed: The only values there are, or empty.
        pattern: What a whole string must match, or None.
        pattern_meaning: The pattern in words, for the error line.
        min_length: Characters of a string.
        max_length: Characters of a string.
        minimum: Of an integer.
        maximum: Of an integer.
    """

    name: str
    description: str
    kind: FieldKind = FieldKind.STRING
    is_required: bool = False
    is_secret: bool = False
    is_of_account: bool = False
    allowed: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    pattern_meaning: str = ""
    min_length: int | None = None
    max_length: int | None = None
    minimum: int | None = None
    maximum: int | None = None


class Packing(enum.StrEnum):
    """How the bytes of an image file are packed, by their magic, whatever the file is called."""

    RAW = "raw"
    XZ = "xz"
    GZIP = "gz"
    BZIP2 = "bz2"
    ZSTD = "zst"
    TAR = "tar"


@frozen()
class Image:
    """An image file that is to be uploaded.

    Attributes:
        path: Where its bytes are; in a spool this is `N.file`.
        filename: Its real base name: no slash, no control characters, not hidden.
        packing: See Packing.
        size_bytes: Of the file as it lies there.
        is_tarball: Whether there is a tar archive in the packing.
        disk_format: What is inside, as far as the first bytes tell: a fixed VHD looks raw.
        identity: Device, inode, size in bytes and time of the last change in nanoseconds as they were, by which
            it is known again; None if nobody looked.
    """

    path: Path
    filename: str
    packing: Packing
    size_bytes: int
    is_tarball: bool = False
    disk_format: DiskFormat = DiskFormat.RAW
    identity: tuple[int, int, int, int] | None = None


@frozen()
class CloudObject:
    """A thing in the cloud, by the cloud's own words.

    Attributes:
        kind: For example "instance", "snapshot", "image"; a platform's own vocabulary.
        id: For example i-0123456789abcdef0.
        region: Where it is; "" for a platform without regions.
    """

    kind: str
    id: str
    region: str = ""


@frozen()
class ImageFound:
    """The image has been looked at, and will be uploaded.

    Attributes:
        image: See Image.
    """

    image: Image


@frozen()
class PhaseStarted:
    """The work has reached another phase.

    Attributes:
        phase: A short lower-case word or two, for example "check image", "upload".
    """

    phase: str


@frozen()
class BytesMoved:
    """So much of the current phase is done.

    Attributes:
        done_bytes: Since the phase began.
        total_bytes: What it will be in the end; None if nobody knows.
    """

    done_bytes: int
    total_bytes: int | None


@frozen()
class ObjectCreated:
    """A thing now exists in the cloud."""

    object: CloudObject


@frozen()
class ObjectRemoved:
    """A thing that we made is gone again."""

    object: CloudObject


Event = ImageFound | PhaseStarted | BytesMoved | ObjectCreated | ObjectRemoved


class Reporter(Protocol):
    """Where a platform tells what it does. Every method returns at once and never raises."""

    def line(self, text: str) -> None:
        """Write a line to the job's log. Control characters and secrets in it are masked."""

    def detail(self, text: str) -> None:
        """Write a line that only somebody who debugs wants to see (--verbose)."""

    def event(self, event: Event) -> None:
        """Tell programs and progress bars, and the log as far as people want it.

        `inspect` and `kill` read phases and objects back from the log: what a platform makes in the cloud and
        does not report here can't be found again after a crash.
        """

    def hide(self, secret: str) -> None:
        """From now on mask this string wherever it would be written."""


class Journal(Protocol):
    """What an upload wrote down for the time after a crash; each entry is a JSON object with a key `what`.

    The same upload (target, user, file name, target data) has the same journal in every try. Objects that
    are reported by `Reporter.event` are written by whoever made the journal, as `made` and `removed`
    (with `kind`, `id` and `region`); a platform itself writes, before it asks for something:

        {"what": "asked", "kind": "snapshot", "region": "eu-west-1", "token": "...", ...}

    and before it asks for a snapshot to be completed, so that `cleanup` leaves it alone while the cloud does that:

        {"what": "sealing", "snapshot_id": "snap-...", ...}

    and whatever else it needs to know in a later try, under `what`s of its own.

    Attributes:
        key: 32 hexadecimal digits, made from what makes the upload the same; for client tokens and tags.
        directory: Private to this upload, for a platform's own files. Gone after a success.
    """

    key: str
    directory: Path

    def entries(self) -> Sequence[Mapping[str, JsonValue]]:
        """All entries, oldest first: those of earlier tries that did not end well, then our own."""

    def write(self, what: str, **values: JsonValue) -> None:
        """Add an entry; it is on the disk when this returns.

        Raises:
            LocalIOError: It can't be written.
        """


class CheckUnchanged(Protocol):
    """See UploadRequest."""

    def __call__(self, sha256: str | None = None) -> None:
        """Hold the image against what it was."""


class Measure(Protocol):
    """See UploadRequest."""

    def __call__(self, *, is_by_name: bool = True) -> int:
        """Read the image to its end."""


@frozen(kw_only=True)
class UploadRequest:
    """One image to be uploaded.

    Attributes:
        user: Who asked for it; may hold anything, surrogate escapes included.
        job_name: The job's id in the spool, or None.
        arch: The job's architecture in OBS's words, or None.
        image: The image; `image.path` carries the name that `Platform.link_name` asked for.
        targetdata: Checked by the platform's fields and decrypted. May hold secrets. Absent
            optional fields are absent here, whatever form absence had.
        work_dir: Private (0700), empty, outside the spool, removed afterwards by the caller.
        is_by_hand: Whether a person started it for himself, so that his own credentials may serve.
        measure_image: Reads the image to its end and returns the unpacked size in bytes. Blocks
            for as long as unpacking takes. Raises ImageError if the packing is damaged, and
            StoppedError. Of a tarball it takes the file called `.raw`; called with `is_by_name=False`, what
            `open_blocks` takes.
        inspect_image: Reads the image's first mebibytes and tells what is in them. Raises ImageError.
        open_blocks: Called with the block size in bytes and what becomes of zeros; gives the image's
            blocks. Raises ImageError. All that was made is gone when the context ends.
        check_unchanged: For a platform that reads the image file itself: called when it has, before there is an image
            that can be used, and with the SHA-256 of what was read, in hex, if there is one. Raises ImageError if the
            file was written to or replaced in the meantime, or has another digest than was promised; LocalIOError if
            that can't be told. `measure_image` and `open_blocks` look themselves.
        journal: See Journal.
        provenance: What the build service says of the image, as far as it does: `project`, `package`,
            `repository`, `arch`.
    """

    user: str
    job_name: str | None
    arch: str | None
    image: Image
    targetdata: Mapping[str, JsonValue] = dataclasses.field(repr=False)
    work_dir: Path
    is_by_hand: bool
    measure_image: Measure
    inspect_image: Callable[[], ImageFacts]
    open_blocks: Callable[[int, ZeroBlocks], AbstractContextManager[BlockSource]]
    check_unchanged: CheckUnchanged
    journal: Journal
    provenance: Mapping[str, str]


@frozen()
class Shortfall:
    """A part of what was asked for that failed, though the image is there.

    Attributes:
        subject: For example a region.
        reason: Why, in one line.
    """

    subject: str
    reason: str


@frozen()
class UploadResult:
    """What the cloud gave.

    Attributes:
        id: One line for the result file, for example the AMI id alone.
        objects: What there is now, the image first.
        shortfalls: What failed beside it; the same upload once more makes up for these.
        is_already_there: Whether an earlier upload had made it, so that nothing was sent.
    """

    id: str
    objects: tuple[CloudObject, ...] = ()
    shortfalls: tuple[Shortfall, ...] = ()
    is_already_there: bool = False


@frozen()
class Cost:
    """What the cloud will charge for a part of an upload, by list prices.

    Attributes:
        what: For example "storage of the snapshot"; without a full stop.
        usd: At most so many US dollars.
        is_monthly: Whether they are due each month, as long as it is there; else once.
    """

    what: str
    usd: float
    is_monthly: bool = False


@frozen()
class Plan:
    """What an upload would do.

    Attributes:
        steps: A line each; "would" can stand before it.
        costs: What is known of what the cloud charges.
    """

    steps: tuple[str, ...]
    costs: tuple[Cost, ...] = ()


@frozen()
class Leftover:
    """A thing in the cloud that could not be removed.

    Attributes:
        object: Which one.
        reason: Why not, in one line.
    """

    object: CloudObject
    reason: str


@frozen()
class Found:
    """A thing in the cloud that bears the tags of an upload.

    Attributes:
        object: Which one.
        key: The upload's, see Journal.
        job_name: The job's id, or "".
        created: When, aware; None if the cloud does not tell.
        keep_reason: Why it must not be removed ("in use by ami-..."), or None for a leftover.
        is_complete: Whether it is kept only because another try can make use of it.
        is_pending: Whether it is a snapshot that is not complete: it waits for content, or is being completed.
    """

    object: CloudObject
    key: str
    job_name: str
    created: datetime.datetime | None
    keep_reason: str | None
    is_complete: bool = False
    is_pending: bool = False


@frozen()
class CleanUpReport:
    """What a clean-up did.

    Attributes:
        removed: Gone now.
        left: Still there.
        absent: Not there, says the cloud; no `ObjectRemoved` was reported. Whether that means that it is gone is for
            whoever knows when it was made, see `visibility`.
    """

    removed: tuple[CloudObject, ...] = ()
    left: tuple[Leftover, ...] = ()
    absent: tuple[CloudObject, ...] = ()


class Level(enum.StrEnum):
    """How good a finding of `check` is."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@frozen()
class Finding:
    """One line of `clouduploader check`.

    Attributes:
        level: See Level.
        subject: What was looked at, for example a path or "region eu-west-1".
        message: What was found, one sentence without a full stop.
        hint: What to do about it, or None.
    """

    level: Level
    subject: str
    message: str
    hint: str | None = None


@frozen(kw_only=True)
class AccountGuide:
    """What a user needs in order to open his account in the cloud to this service.

    Attributes:
        facts: Short texts by their names in lower case with underscores, for example `external_id`.
        policies: JSON documents by their names, as the cloud's console takes them.
        scripts: The same, ready to be run: whole texts by what they are, for example `cloudformation`.
    """

    facts: Mapping[str, str]
    policies: Mapping[str, Mapping[str, JsonValue]]
    scripts: Mapping[str, str]


@frozen()
class Verification:
    """What came out when an account was tried.

    Attributes:
        findings: What was tried, and how it went.
        is_usable: Whether the service gets into it.
        is_open: Whether anybody does who uses this service, not only its user (the "confused deputy").
    """

    findings: tuple[Finding, ...]
    is_usable: bool
    is_open: bool


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

    def plan(self, request: UploadRequest, reporter: Reporter, stop: Stop) -> Plan:
        """Say what `upload` would do, having checked all that can be checked without a change.

        Called inside `stop.interruptible`.

        Raises:
            StoppedError: `stop` was requested.
            ClouduploaderError: `upload` would fail with this.
        """

    def upload(self, request: UploadRequest, reporter: Reporter, stop: Stop) -> UploadResult:
        """Upload the image, and wait until it can be used. Blocks for minutes or hours.

        A failure or a stop leaves nothing in the cloud; what could not be removed is said in the
        log with its id. A TransientError may leave finished work for another try, which the log says too.

        Raises:
            StoppedError: `stop` was requested; the clean-up is done.
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

    def find(self, targetdata: Mapping[str, JsonValue], key: str | None, reporter: Reporter) -> Sequence[Found]:
        """Look for what uploads made in this account and region, by the tags they put on it.

        Args:
            targetdata: Says which account and region; need not be complete enough for an upload.
            key: Only of this upload, see Journal; None for all.
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


class Hints(Protocol):
    """What a platform can tell a person on the command line about the values of its fields. Optional.

    A platform that has it offers it as its attribute `hints`. No network; making it is as cheap as making the platform.
    """

    def choices(self, name: str) -> Sequence[str]:
        """Values that a field can have, beside those of `Field.allowed`; for completion and suggestions.

        There may be others: what is not among them is not wrong for that.
        """

    def default(self, name: str) -> str | None:
        """What the person's own environment says for a field that is left out; None if it says nothing.

        Raises:
            ClouduploaderError: It can't be found out, for something in there is wrong.
        """


class Accounts(Protocol):
    """What a platform has to do with its users' accounts, where they have some in its cloud. Optional.

    A platform that has it offers it as its attribute `accounts`, and marks with `is_of_account` which of its
    fields an account holds. Making it is as cheap as making the platform. The values of an account are
    strings by the names of these fields, as far as they are known yet; decrypted.
    """

    def new_values(self) -> Mapping[str, str]:
        """Make up what the service itself gives to a new account, in clear. No network.

        Returns:
            Values that nobody had before.
        """

    def guide(
        self, values: Mapping[str, str], *, method: str | None, extras: Sequence[str], reporter: Reporter
    ) -> AccountGuide:
        """Say what the user has to do in the cloud. Uses the network.

        Args:
            values: Of the account.
            method: How his images will get there, of those that the platform knows; None for its setting.
            extras: What the service is to be allowed besides.
            reporter: Told what is done.

        Raises:
            UsageError: A method or an extra that is not known.
            ClouduploaderError: Something that the guide must tell can't be found out.
        """

    def verify(self, values: Mapping[str, str], *, reporter: Reporter) -> Verification:
        """Try whether the service gets in, and nobody else through it. Changes nothing; uses the network.

        A finding is only what is known: what could not be tried, for example without network, is an error.

        Raises:
            DataError: The account lacks what is needed to get in.
            ClouduploaderError: It could not be tried.
        """
