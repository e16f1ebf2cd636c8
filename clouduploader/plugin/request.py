"""What is to be uploaded, and the ways in which a platform reads it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from clouduploader.model.disk import BlockSource, Image, ImageFacts, ImageStream, ZeroBlocks
from clouduploader.plugin.fields import JsonValue
from clouduploader.util.frozen import frozen


class Journal(Protocol):
    """What an upload wrote down for the time after a crash; each entry is a JSON object with a key `what`.

    The same upload (target, user, file name, target data but for the secret fields) has the same journal in every try.
    Objects that are reported by `Reporter.event` are written by the core, as `made` and `removed` (with `kind`, `id`
    and `region`); a platform itself writes, before it asks for something:

        {"what": "asked", "kind": "snapshot", "region": "eu-west-1", "token": "...", ...}

    and whatever else it needs to know in a later try, or to find what this one left (`Context.entries`), under a
    `what` of its own.

    Attributes:
        key: 32 hexadecimal digits, made from what makes the upload the same; for client tokens and tags.
        has_successor: Whether another host goes on with the upload if this process is lost: no program that it has
            started may then change anything in the cloud by itself, be it for a clean-up.
    """

    key: str
    has_successor: bool

    @property
    def directory(self) -> Path:
        """Private to this upload, for a platform's own files. Gone after a success.

        Another host that goes on with the upload gets them too, by what this one sees of them from time to time: names
        are of ASCII letters, digits, `.`, `_` and `-`, do not begin with a dot, and there are no directories. A file
        either only grows, and can be used whatever number of its bytes are there (`ConfirmedChunks`); or it is small,
        written beside its place and renamed (`files.replace_file`).
        """

    def entries(self) -> Sequence[Mapping[str, JsonValue]]:
        """All entries, oldest first: those of earlier tries that did not end well, then our own."""

    def write(self, what: str, **values: JsonValue) -> None:
        """Add an entry; it is on the disk when this returns.

        Raises:
            LocalIOError: It can't be written.
        """

    def ensure_ours(self) -> None:
        """Return if the upload is still this process's; else another host goes on with it, and this process dies.

        `write` looks too, and so does the core before it removes something; a platform calls it (`ctx.ensure_ours`)
        before it ends something by itself that a later try would go on with.
        """


class CheckUnchanged(Protocol):
    """See UploadRequest."""

    def __call__(self, sha256: str | None = None) -> None:
        """Hold the image against what it was."""


class ImageInspector(Protocol):
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
        open_stream: Called with the encoding, one of `Encoding`, and the name of a digest as hashlib has it; gives
            the disk as one stream, in order. May be called again, for another try. Raises ImageError.
        check_unchanged: For a platform that reads the image file itself: called when it has, before there is an image
            that can be used, and with the SHA-256 of what was read, in hex, if there is one. Raises ImageError if the
            file was written to or replaced in the meantime, or has another digest than was promised; LocalIOError if
            that can't be told. `measure_image` and `open_blocks` look themselves.
        await_file: Waits until all of the image file is there: on an upload host it may still come. What opens
            `image.path` calls it first, unless its platform says that it needs the whole file; the other ways of
            reading it wait by themselves. Raises TransientError if it does not come.
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
    measure_image: ImageInspector
    inspect_image: Callable[[], ImageFacts]
    open_blocks: Callable[[int, ZeroBlocks], AbstractContextManager[BlockSource]]
    open_stream: Callable[[str, str], AbstractContextManager[ImageStream]]
    check_unchanged: CheckUnchanged
    journal: Journal
    provenance: Mapping[str, str]
    await_file: Callable[[], None] = lambda: None
