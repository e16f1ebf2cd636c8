"""The ways in which a platform reads the image of its upload."""

import contextlib
import functools
from pathlib import Path

from clouduploader.image import open as image_open
from clouduploader.model.disk import BlockSource, Image, ImageFacts, ImageStream, ZeroBlocks
from clouduploader.plugin import BytesMoved, Reporter
from clouduploader.util.cancel import Cancel


class ImageReader:
    """One image, with all that its job says of it. Reads nothing before one of the methods is called.

    Args:
        image: What is read.
        original_path: Where the image lies: the file with its checksum is looked for beside it.
        promised_sha256: The digest that the target data promise, in hex; None for that of a file beside the image.
        max_size_bytes: The most that the raw disk may have.
        is_forced: Whether what is wrong with the image is logged, not refused, where that can be.
        reporter: Told the progress, and each thing that `is_forced` passes over, once.
        cancel: Looked at while the image is read.

    Attributes:
        is_forced: As given.
    """

    def __init__(
        self,
        image: Image,
        *,
        original_path: Path,
        promised_sha256: str | None,
        max_size_bytes: int,
        is_forced: bool,
        reporter: Reporter,
        cancel: Cancel,
    ) -> None:
        self._image = image
        self._original_path = original_path
        self._promised_sha256 = promised_sha256
        self._max_size_bytes = max_size_bytes
        self._reporter = reporter
        self._cancel = cancel
        self.is_forced = is_forced
        self._overlook = functools.lru_cache(None)(self._report_overlooked) if is_forced else None  # each once

    def measure(self, *, is_by_name: bool = True) -> int:
        """Read the image to its end and return its unpacked size in bytes; see `UploadRequest.measure_image`."""
        return image_open.measure(
            self._image,
            on_bytes=self._report_bytes,
            cancel=self._cancel,
            expected_sha256=self._expected_sha256(),
            max_size_bytes=self._max_size_bytes,
            is_by_name=is_by_name,
            in_sectors=not self.is_forced,
            overlook=self._overlook,
        )

    @functools.cached_property
    def facts(self) -> ImageFacts:
        """What the image's first mebibytes tell; see `UploadRequest.inspect_image`."""
        from clouduploader.image import inspect

        return inspect.inspect(self._image, self._cancel, self._overlook)

    def open_blocks(self, block_bytes: int, zero_blocks: ZeroBlocks) -> contextlib.AbstractContextManager[BlockSource]:
        """Open the raw disk as blocks; see `UploadRequest.open_blocks`."""
        return image_open.open_blocks(
            self._image,
            block_bytes=block_bytes,
            zero_blocks=zero_blocks,
            expected_sha256=self._expected_sha256(),
            max_size_bytes=self._max_size_bytes,
            cancel=self._cancel,
            reporter=self._reporter,
            in_sectors=not self.is_forced,
            overlook=self._overlook,
        )

    def open_stream(self, encoding: str, digest: str) -> contextlib.AbstractContextManager[ImageStream]:
        """Open the disk as one stream; see `UploadRequest.open_stream`."""
        from clouduploader.image import encode

        return encode.open_stream(
            self.open_blocks,
            image=self._image,
            check_unchanged=self.check_unchanged,
            cancel=self._cancel,
            encoding=encoding,
            digest=digest,
            size_bytes=self.facts.size_bytes if self.facts.is_size_exact else None,
        )

    def check_unchanged(self, sha256: str | None = None) -> None:
        """Refuse an image that was changed since it was first looked at; see `UploadRequest.check_unchanged`."""
        image_open.check_unchanged(self._image, sha256, self._expected_sha256() if sha256 else None)

    def _report_overlooked(self, message: str) -> None:
        self._reporter.line(f"Going on all the same, as force says: {message}.")

    def _report_bytes(self, done_bytes: int) -> None:
        self._reporter.event(BytesMoved(done_bytes, self._image.size_bytes))

    def _expected_sha256(self) -> str | None:
        from clouduploader.image import file_digest

        return self._promised_sha256 or file_digest.find(self._original_path, self._image.filename)
