"""From an image to a page file that holds it as a fixed VHD, and back again."""

import functools
import hashlib
from collections.abc import Iterator

from clouduploader.errors import ClouduploaderError, ImageError, PlatformReplyError
from clouduploader.model import vhd
from clouduploader.model.disk import ReadStats, ZeroBlocks
from clouduploader.platforms.azure.answers import patiently
from clouduploader.platforms.azure.pages import PAGE_BYTES, PageFile
from clouduploader.platforms.azure.settings import AzureSettings
from clouduploader.plugin import BytesMoved, UploadContext
from clouduploader.plugin.transfer import ConfirmedChunks, ContentChangedError, send_chunks

MIN_DISK_BYTES = 20 << 20  # Microsoft.Compute, CreationData, uploadSizeBytes: "20972032 (20 MiB + 512 bytes [...])"
MAX_DISK_BYTES = 4095 << 30  # of an OS disk ("Azure managed disk types")


class OtherSizeError(ClouduploaderError):
    """The image turned out to have another size than was thought."""


class MismatchError(PlatformReplyError):
    """The pages are not what was sent."""


class PageFiller:
    """Fills one page file. Used once.

    Args:
        ctx: The upload.
        settings: See AzureSettings.
        file: Where the pages go.
        confirmed: Says which of them it has.
        disk_bytes: Of the disk in the VHD, whole MiB; behind it comes the footer.
    """

    def __init__(
        self,
        ctx: UploadContext,
        settings: AzureSettings,
        file: PageFile,
        confirmed: ConfirmedChunks,
        disk_bytes: int,
    ) -> None:
        self._ctx = ctx
        self._settings = settings
        self._file = file
        self._confirmed = confirmed
        self._disk_bytes = disk_bytes

    def check_kept(self) -> None:
        """Make sure that the service has what an earlier try had confirmed.

        Raises:
            ContentChangedError: It has not.
        """
        written = set(self._written())
        for index in self._indices():
            if index not in written:
                raise ContentChangedError(f"page {index} of an earlier try is gone")

    def fill(self, size_bytes: int) -> ReadStats:
        """Send what is missing, then the footer. Blocks.

        Args:
            size_bytes: Of the raw disk, as far as it is known.

        Raises:
            OtherSizeError: The disk has another size, for which the page file is too small or too large.
            ContentChangedError: The image is another one than in the earlier try.
            ClouduploaderError: See `send_chunks`.
        """
        with self._ctx.open_blocks(PAGE_BYTES, ZeroBlocks.SKIP) as source:
            send_chunks(
                self._ctx,
                source,
                self._put,
                confirmed=self._confirmed,
                threads=self._settings.connections,
                per_second=self._settings.pages_per_second,
                total_bytes=size_bytes,
            )
            stats = source.stats()
        if stats.size_bytes > self._disk_bytes or vhd.padded_bytes(stats.size_bytes) != vhd.padded_bytes(size_bytes):
            raise OtherSizeError(f"the image has {stats.size_bytes} bytes, not {size_bytes} as it seemed")
        footer = vhd.fixed_footer(self._disk_bytes, bytes.fromhex(self._ctx.request.journal.key))
        patiently(self._ctx, lambda: self._file.put(self._disk_bytes, footer), subject="the footer")
        self._clear_rest()
        self._ctx.reporter.line(
            f"All {self._confirmed.count} pages of 4 MiB are sent, and the footer of a VHD. Left out, for they are "
            f"zeros: {-(-self._disk_bytes // PAGE_BYTES) - self._confirmed.count}."
        )
        return stats

    def verify(self) -> None:
        """Read all pages back. Blocks.

        Raises:
            MismatchError: One is another than was sent.
            ClouduploaderError: They can't be read.
        """
        for done, index in enumerate(self._indices(), 1):
            self._verify_page(index)
            self._ctx.reporter.event(BytesMoved(done * PAGE_BYTES, self._confirmed.count * PAGE_BYTES))
        self._ctx.reporter.line(f"Verified: {self._confirmed.count} pages read back and equal.")

    def _put(self, index: int, data: bytes) -> None:
        offset = index * PAGE_BYTES
        if offset >= self._disk_bytes:
            raise OtherSizeError("the image is larger than it seemed to be")
        self._file.put(offset, data[: self._disk_bytes - offset])

    def _verify_page(self, index: int) -> None:
        offset, size = self._place(index)
        data = patiently(self._ctx, lambda: self._file.read(offset, size), subject=f"page {index}")
        if hashlib.sha256(data.ljust(PAGE_BYTES, b"\0")).digest() != self._confirmed.confirmed(index):
            raise MismatchError(
                f"page {index} is not what was sent",
                hint="No image was made. Upload it again; if it happens again, tell Microsoft.",
            )

    def _clear_rest(self) -> None:
        """Clear what is there though the image has nothing there, sent by an earlier try for another image."""
        for index in self._written():
            if self._confirmed.confirmed(index) is None:
                clear = functools.partial(self._file.clear, *self._place(index))
                patiently(self._ctx, clear, subject=f"page {index}")

    def _place(self, index: int) -> tuple[int, int]:
        """Return where a page begins, and how many bytes of the disk are in it."""
        offset = index * PAGE_BYTES
        return offset, min(PAGE_BYTES, self._disk_bytes - offset)

    def _written(self) -> Iterator[int]:
        """Yield the numbers of pages in which something was written, each once, but for the footer's own."""
        last = -1
        for start, end in patiently(self._ctx, lambda: list(self._file.ranges()), subject="the page ranges"):
            for index in range(max(start // PAGE_BYTES, last + 1), -(-min(end, self._disk_bytes) // PAGE_BYTES)):
                yield index
                last = index

    def _indices(self) -> Iterator[int]:
        pages = -(-self._disk_bytes // PAGE_BYTES)
        return (index for index in range(pages) if self._confirmed.confirmed(index) is not None)


def disk_bytes(size_bytes: int) -> int:
    """Return the size of the disk in the VHD of a raw disk of so many bytes.

    Raises:
        ImageError: It is larger than Azure's largest.
    """
    if size_bytes > MAX_DISK_BYTES:
        raise ImageError(f"the disk has {size_bytes} bytes, and the largest of a managed image {MAX_DISK_BYTES}")
    return max(vhd.padded_bytes(size_bytes), MIN_DISK_BYTES)
