import hashlib

from clouduploader.plugin.testing import MemoryBlocks
from clouduploader.plugin.transfer import ConfirmedChunks, content, read_content

CHUNK_BYTES = 4096


def test_disk_has_one_content_whether_its_zeros_were_sent_or_not(tmp_path):
    disk = b"a" * CHUNK_BYTES + bytes(3 * CHUNK_BYTES) + b"b" * 100
    found = set()
    for is_sent in (True, False):
        with ConfirmedChunks(tmp_path / str(is_sent), CHUNK_BYTES) as confirmed:
            for index in range(5):
                chunk = disk[index * CHUNK_BYTES :][:CHUNK_BYTES].ljust(CHUNK_BYTES, b"\0")
                if is_sent or any(chunk):
                    confirmed.confirm([(index, hashlib.sha256(chunk).digest())])
            found.add(content(confirmed, len(disk)))
    assert len(found) == 1


def test_content_read_is_that_of_what_was_sent(upload_ctx, tmp_path):
    disk = upload_ctx.request.image.path.read_bytes()
    source, buffer = MemoryBlocks(disk, CHUNK_BYTES), bytearray(CHUNK_BYTES)
    with ConfirmedChunks(tmp_path / "sent", CHUNK_BYTES) as confirmed:
        while block := source.next_into(buffer):
            confirmed.confirm([(block.index, hashlib.sha256(buffer).digest())])
        assert read_content(upload_ctx, CHUNK_BYTES) == content(confirmed, len(disk))
        assert read_content(upload_ctx, CHUNK_BYTES) != content(confirmed, len(disk) + 1)
    assert not (upload_ctx.request.work_dir / "content.confirmed").exists()
