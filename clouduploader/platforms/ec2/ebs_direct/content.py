"""What identifies the content of a disk, whatever its packing: the value of `tags.CONTENT`."""

import hashlib

from clouduploader.contents import Tally, ZeroBlocks
from clouduploader.platform import UploadRequest
from clouduploader.platforms.ec2 import tags
from clouduploader.platforms.ec2.ebs_direct import ledger, wire
from clouduploader.stop import Stop


def of(digests: ledger.Ledger, tally: Tally) -> str:
    """Of an image that was read to its end.

    Args:
        digests: Of its blocks; those that it leaves out may be missing.
        tally: What came out of it.
    """
    total_blocks = -(-tally.size_bytes // wire.BLOCK_BYTES)
    return tags.content(digests.content_digest(total_blocks), tally.size_bytes)


def read(request: UploadRequest, stop: Stop) -> str:
    """Of the request's image, which is read to its end; no network is used.

    Raises:
        ClouduploaderError: It can't be read, or is damaged.
        StoppedError: The stop was requested.
    """
    path = request.work_dir / "content.ledger"
    # What is left out counts as zeros, so that leaving out all zeros is the fastest way to the same value.
    with ledger.Ledger(path) as digests, request.open_blocks(wire.BLOCK_BYTES, ZeroBlocks.SKIP) as source:
        buffer = bytearray(wire.BLOCK_BYTES)
        while block := source.next_into(buffer):
            stop.raise_if_requested()
            digest = ledger.ZERO_DIGEST if block.is_zero else hashlib.sha256(buffer).digest()
            digests.confirm([(block.index, digest)])
        found = of(digests, source.tally())
    path.unlink()
    return found
