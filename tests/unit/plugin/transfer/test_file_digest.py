"""The digest of a file, made beside the transfer."""

import hashlib
import os
import threading

import pytest

from clouduploader.errors import LocalIOError, StoppedError
from clouduploader.plugin.transfer import file_digest, threads
from clouduploader.util.cancel import Cancel


@pytest.mark.parametrize("size", [0, 1, file_digest.PIECE_BYTES, 2 * file_digest.PIECE_BYTES + 1])
def test_digest_is_that_of_the_whole_file(tmp_path, size):
    path = tmp_path / "image"
    path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    with file_digest.FileDigest(path, Cancel()) as digest:
        assert digest.result() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_file_that_can_not_be_read_is_an_error(tmp_path):
    with file_digest.FileDigest(tmp_path, Cancel()) as digest, pytest.raises(LocalIOError, match="can't be read"):
        digest.result()


def test_reading_ends_with_the_context(tmp_path):
    path = tmp_path / "image"
    path.touch()
    os.truncate(path, 1 << 40)  # hours
    cancel = Cancel()
    cancel.request(15)
    with file_digest.FileDigest(path, cancel) as digest, pytest.raises(StoppedError):
        digest.result()
    assert not [one for one in threading.enumerate() if one.name.startswith(threads.NAME)]
