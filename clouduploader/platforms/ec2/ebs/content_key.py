"""What identifies the content of a disk, whatever its packing: the value of `tags.CONTENT`."""

import hashlib

from clouduploader.model.disk import ReadStats, ZeroBlocks
from clouduploader.platforms.ec2 import labels
from clouduploader.platforms.ec2.ebs import confirmed, protocol
from clouduploader.plugin import UploadRequest
from clouduploader.util.cancel import Cancel


def of(digests: confirmed.ConfirmedBlocks, tally: ReadStats) -> str:
    """Of an image that was read to its end.

    Args:
        digests: Of its blocks; those that it leaves out may be missing.
        tally: What came out of it.
    """
    total_blocks = -(-tally.size_bytes // protocol.BLOCK_BYTES)
    return labels.content(digests.content_digest(total_blocks), tally.size_bytes)


def read(request: UploadRequest, cancel: Cancel) -> str:
    """Of the request's image, which is read to its end; no network is used.

    Raises:
        ClouduploaderError: It can't be read, or is damaged.
        StoppedError: The stop was requested.
    """
    path = request.work_dir / "content.ledger"
    # What is left out counts as zeros, so that leaving out all zeros is the fastest way to the same value.
    with (
        confirmed.ConfirmedBlocks(path) as digests,
        request.open_blocks(protocol.BLOCK_BYTES, ZeroBlocks.SKIP) as source,
    ):
        buffer = bytearray(protocol.BLOCK_BYTES)
        while block := source.next_into(buffer):
            cancel.raise_if_requested()
            digest = confirmed.ZERO_DIGEST if block.is_zero else hashlib.sha256(buffer).digest()
            digests.confirm([(block.index, digest)])
        found = of(digests, source.tally())
    path.unlink()
    return found
