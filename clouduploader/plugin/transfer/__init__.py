"""Send a disk in chunks from several threads: rate limit, re-sends, and a log of what the cloud has, for a resume.

For clouds that take a disk in pieces: blocks of a snapshot, pages of a blob, parts of a multipart upload, chunks of a
resumable one. A platform says how one chunk is sent, by any SDK:

    def put(index: int, data: bytes) -> None:
        checksum = base64.b64encode(hashlib.md5(data).digest()).decode()
        blob.upload_page(data, offset=index * PAGE_BYTES, content_md5=checksum)

    path = ctx.request.journal.directory / f"{blob_id}.confirmed"
    with ctx.open_blocks(PAGE_BYTES, ZeroBlocks.SKIP) as source, ConfirmedChunks(path, PAGE_BYTES) as confirmed:
        send_chunks(ctx, source, put, confirmed=confirmed, threads=16, per_second=400, total_bytes=facts.size_bytes)

The errors of `put` go through `Platform.translate`: those that become a TransientError are tried again, a
ThrottledError slows the transfer down, a NetworkError makes the number of chunks under way smaller, others end it. An
upload that goes on after a crash opens the same file of confirmed chunks, hashes each chunk of the image again, and
sends what is missing; should the image be another one now, that is a ContentChangedError.

A cloud that takes chunks in order only, as in a resumable upload, gets one thread (`threads=1`) and all zeros
(`ZeroBlocks.SEND`); one that zeroes a new disk itself needs none (`ZeroBlocks.SKIP`).

`ahead` prepares the next part of one stream while a part is sent.

A platform with an event loop of its own in place of an SDK uses the parts: `ChunkTransfer`, which decides what is sent
next and when again, with its `RateLimiter` and `Window`; `ThreadGroup`; and `run`.
"""

from clouduploader.plugin.transfer.ahead import ahead
from clouduploader.plugin.transfer.chunks import ChunkTransfer, ChunkUpload, NoChunk, Timeouts
from clouduploader.plugin.transfer.confirmed import ConfirmedChunks, ContentChangedError, zero_digest
from clouduploader.plugin.transfer.content import content, read_content
from clouduploader.plugin.transfer.file_digest import FileDigest
from clouduploader.plugin.transfer.rate import RateLimiter, Window
from clouduploader.plugin.transfer.send import run, send_chunks, workers
from clouduploader.plugin.transfer.threads import ThreadGroup

__all__ = [
    "ChunkTransfer",
    "ChunkUpload",
    "ConfirmedChunks",
    "ContentChangedError",
    "FileDigest",
    "NoChunk",
    "RateLimiter",
    "ThreadGroup",
    "Timeouts",
    "Window",
    "ahead",
    "content",
    "read_content",
    "run",
    "send_chunks",
    "workers",
    "zero_digest",
]
