"""What identifies a disk, whatever its packing was and whatever became of its zeros."""

import hashlib

from clouduploader.model.disk import ZeroBlocks
from clouduploader.plugin.context import UploadContext
from clouduploader.plugin.transfer.confirmed import ConfirmedChunks


def content(confirmed: ConfirmedChunks, size_bytes: int) -> str:
    """Return the same for the same disk, and for no other: the digest of its chunks' digests, and its size.

    Args:
        confirmed: All chunks of the disk; those of zeros may be missing.
        size_bytes: Of the disk.
    """
    return f"{confirmed.content_digest(-(-size_bytes // confirmed.chunk_bytes))}:{size_bytes}"


def read_content(ctx: UploadContext, chunk_bytes: int) -> str:
    """Read the upload's image to its end, without the network, for its `content`.

    Args:
        ctx: The upload.
        chunk_bytes: The size of a chunk, as in the uploads that it is compared with.

    Raises:
        ClouduploaderError: It can't be read, or is damaged.
        StoppedError: The upload was cancelled.
    """
    path = ctx.request.work_dir / "content.confirmed"
    with (
        ConfirmedChunks(path, chunk_bytes) as digests,
        ctx.open_blocks(chunk_bytes, ZeroBlocks.SKIP) as source,
    ):
        buffer = bytearray(chunk_bytes)
        while block := source.next_into(buffer):
            ctx.cancel.raise_if_requested()
            if not block.is_zero:
                digests.confirm([(block.index, hashlib.sha256(buffer).digest())])
        found = content(digests, source.stats().size_bytes)
    path.unlink()
    return found
