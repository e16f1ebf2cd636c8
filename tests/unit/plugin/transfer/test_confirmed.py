import hashlib
import resource
import stat
import threading

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import LocalIOError
from clouduploader.plugin.transfer.confirmed import MAGIC, ConfirmedChunks, ContentChangedError, zero_digest

CHUNK_BYTES = 4096
RECORD_BYTES = 40
ZERO_DIGEST = zero_digest(CHUNK_BYTES)


def digest(number):
    return hashlib.sha256(str(number).encode()).digest()


def combined(digests):
    return hashlib.sha256(b"".join(digests)).digest()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "confirmed"


def test_new_log_is_empty_and_private(path):
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        assert log.count == 0
        assert log.confirmed(0) is None
        assert (log.count, log.digest_of_digests()) == (0, combined([]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_zero_digest_is_that_of_a_chunk():
    assert hashlib.sha256(bytes(CHUNK_BYTES)).digest() == ZERO_DIGEST


def test_confirmed_chunks_survive(path):
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        log.confirm([(3, digest(3)), (0, digest(0))])
        log.confirm([])
        log.confirm([(200_000, digest(7))])
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        assert log.count == 3
        assert [log.confirmed(index) for index in (0, 1, 3, 200_000, 200_001)] == [
            digest(0), None, digest(3), digest(7), None,
        ]  # fmt: skip
        assert (log.count, log.digest_of_digests()) == (3, combined([digest(0), digest(3), digest(7)]))


def test_confirmed_chunks_are_in_the_file_at_once(path):
    with ConfirmedChunks(path, CHUNK_BYTES) as first:
        first.confirm([(1, digest(1))])
        with ConfirmedChunks(path, CHUNK_BYTES) as second:
            assert second.confirmed(1) == digest(1)


def test_chunk_confirmed_twice_counts_once(path):
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        log.confirm([(1, digest(1)), (1, digest(1))])
        log.confirm([(1, digest(1))])
        assert (log.count, log.digest_of_digests()) == (1, combined([digest(1)]))
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        assert log.count == 1


def test_other_content_of_a_confirmed_chunk_is_refused(path):
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        log.confirm([(1, digest(1))])
        with pytest.raises(ContentChangedError, match="block 1"):
            log.confirm([(0, digest(0)), (1, digest(2))])
        assert log.confirmed(1) == digest(1)
        assert log.confirmed(0) is None


@hypothesis.given(
    chunks=st.dictionaries(st.integers(0, 60), st.one_of(st.just(ZERO_DIGEST), st.binary(min_size=32, max_size=32))),
    more=st.integers(0, 5000),
)
def test_checksums_are_over_the_digests_in_order(tmp_path_factory, chunks, more):
    total = max(chunks, default=-1) + 1 + more
    with ConfirmedChunks(tmp_path_factory.mktemp("log") / "log", CHUNK_BYTES) as log:
        log.confirm(chunks.items())
        assert (log.count, log.digest_of_digests()) == (
            len(chunks),
            combined(chunks[index] for index in sorted(chunks)),
        )
        every = b"".join(chunks.get(index, ZERO_DIGEST) for index in range(total))
        assert log.content_digest(total) == hashlib.sha256(every).hexdigest()


def test_content_is_the_same_whatever_became_of_zeros(tmp_path):
    with (
        ConfirmedChunks(tmp_path / "sent", CHUNK_BYTES) as sent,
        ConfirmedChunks(tmp_path / "skipped", CHUNK_BYTES) as skipped,
    ):
        sent.confirm([(0, ZERO_DIGEST), (1, digest(1)), (2, ZERO_DIGEST)])
        skipped.confirm([(1, digest(1))])
        assert sent.content_digest(3) == skipped.content_digest(3)
        assert sent.content_digest(3) != skipped.content_digest(4)
        assert sent.digest_of_digests() != skipped.digest_of_digests()


@pytest.mark.parametrize("length", range(8 + 3 * RECORD_BYTES))
def test_torn_end_is_ignored_and_written_over(path, length):
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        log.confirm([(index, digest(index)) for index in range(3)])
    path.write_bytes(path.read_bytes()[:length])
    whole = max(0, length - 8) // RECORD_BYTES
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        assert log.count == whole
        log.confirm([(9, digest(9))])
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        assert log.count == whole + 1
        assert log.confirmed(9) == digest(9)


@pytest.mark.parametrize("tail", [bytes(1000), b"x" * 79, bytes(39)])
def test_end_made_up_by_a_crash_is_ignored(path, tail):
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        log.confirm([(1, digest(1))])
    with path.open("ab") as file:
        file.write(tail)
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        assert log.count == 1
        log.confirm([(2, digest(2))])
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        assert (log.confirmed(1), log.confirmed(2)) == (digest(1), digest(2))


@hypothesis.given(st.binary(max_size=300))
def test_no_bytes_break_a_log(tmp_path_factory, tail):
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(MAGIC + tail)
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        assert log.count <= len(tail) // RECORD_BYTES


def test_long_log_is_read_in_pieces(path):
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        log.confirm([(index, digest(index % 7)) for index in range(60_000)])
        expected = log.digest_of_digests()
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        assert log.digest_of_digests() == expected
        assert log.count == 60_000


def test_file_that_is_no_log_is_left_alone(path):
    path.write_bytes(b"something else")
    with pytest.raises(LocalIOError, match="not a log of confirmed chunks"):
        ConfirmedChunks(path, CHUNK_BYTES)
    assert path.read_bytes() == b"something else"


def test_log_in_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(LocalIOError, match="No such file"):
        ConfirmedChunks(tmp_path / "none" / "log", CHUNK_BYTES)


def test_full_disk_is_an_error_and_leaves_no_half_record(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        log.confirm([(0, digest(0))])
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # Python ignores SIGXFSZ
        try:
            with pytest.raises(LocalIOError, match="No space left"):
                log.confirm([(1, digest(1)), (2, digest(2))])
            with pytest.raises(LocalIOError, match="No space left"):
                log.confirm([(3, digest(3)), (4, digest(4))])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        log.confirm([(5, digest(5))])
        assert log.count == 2
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        assert [log.confirmed(index) for index in (0, 1, 5)] == [digest(0), None, digest(5)]


def test_rest_may_hold_zeros_only(path):
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        log.confirm([(0, digest(0)), (1, ZERO_DIGEST), (3, digest(3))])
        log.check_rest(bytearray(b"\1\0\0\1"))
        with pytest.raises(ContentChangedError, match="block 3"):
            log.check_rest(bytearray(b"\1\1\1"))


def test_many_threads_may_confirm(path):
    with ConfirmedChunks(path, CHUNK_BYTES) as log:

        def work(number):
            for index in range(number, 4000, 8):
                log.confirm([(index, digest(index))])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = combined(map(digest, range(4000)))
        assert (log.count, log.digest_of_digests()) == (4000, expected)
    with ConfirmedChunks(path, CHUNK_BYTES) as log:
        assert (log.count, log.digest_of_digests()) == (4000, expected)
