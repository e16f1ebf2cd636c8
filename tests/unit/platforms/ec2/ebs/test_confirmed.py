import base64
import hashlib
import resource
import stat
import threading

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import LocalIOError
from clouduploader.platforms.ec2.ebs import confirmed as ledgers
from clouduploader.platforms.ec2.ebs.confirmed import ZERO_DIGEST, ConfirmedBlocks, ContentChangedError

RECORD_BYTES = 40


def digest(number):
    return hashlib.sha256(str(number).encode()).digest()


def linear(digests):
    return base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger"


def test_new_ledger_is_empty_and_private(path):
    with ConfirmedBlocks(path) as ledger:
        assert ledger.count == 0
        assert ledger.confirmed(0) is None
        assert ledger.linear_checksum() == (0, linear([]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_zero_digest_is_that_of_a_block():
    assert hashlib.sha256(bytes(524288)).digest() == ZERO_DIGEST


def test_confirmed_blocks_survive(path):
    with ConfirmedBlocks(path) as ledger:
        ledger.confirm([(3, digest(3)), (0, digest(0))])
        ledger.confirm([])
        ledger.confirm([(200_000, digest(7))])
    with ConfirmedBlocks(path) as ledger:
        assert ledger.count == 3
        assert [ledger.confirmed(index) for index in (0, 1, 3, 200_000, 200_001)] == [
            digest(0), None, digest(3), digest(7), None,
        ]  # fmt: skip
        assert ledger.linear_checksum() == (3, linear([digest(0), digest(3), digest(7)]))


def test_confirmed_blocks_are_in_the_file_at_once(path):
    with ConfirmedBlocks(path) as first:
        first.confirm([(1, digest(1))])
        with ConfirmedBlocks(path) as second:
            assert second.confirmed(1) == digest(1)


def test_block_confirmed_twice_counts_once(path):
    with ConfirmedBlocks(path) as ledger:
        ledger.confirm([(1, digest(1)), (1, digest(1))])
        ledger.confirm([(1, digest(1))])
        assert ledger.linear_checksum() == (1, linear([digest(1)]))
    with ConfirmedBlocks(path) as ledger:
        assert ledger.count == 1


def test_other_content_of_a_confirmed_block_is_refused(path):
    with ConfirmedBlocks(path) as ledger:
        ledger.confirm([(1, digest(1))])
        with pytest.raises(ContentChangedError, match="block 1"):
            ledger.confirm([(0, digest(0)), (1, digest(2))])
        assert ledger.confirmed(1) == digest(1)
        assert ledger.confirmed(0) is None


@hypothesis.given(
    blocks=st.dictionaries(st.integers(0, 60), st.one_of(st.just(ZERO_DIGEST), st.binary(min_size=32, max_size=32))),
    more=st.integers(0, 5000),
)
def test_checksums_are_over_the_digests_in_order(tmp_path_factory, blocks, more):
    total = max(blocks, default=-1) + 1 + more
    with ConfirmedBlocks(tmp_path_factory.mktemp("ledger") / "ledger") as ledger:
        ledger.confirm(blocks.items())
        assert ledger.linear_checksum() == (len(blocks), linear(blocks[index] for index in sorted(blocks)))
        every = b"".join(blocks.get(index, ZERO_DIGEST) for index in range(total))
        assert ledger.content_digest(total) == hashlib.sha256(every).hexdigest()


def test_content_is_the_same_whatever_became_of_zeros(tmp_path):
    with ConfirmedBlocks(tmp_path / "sent") as sent, ConfirmedBlocks(tmp_path / "skipped") as skipped:
        sent.confirm([(0, ZERO_DIGEST), (1, digest(1)), (2, ZERO_DIGEST)])
        skipped.confirm([(1, digest(1))])
        assert sent.content_digest(3) == skipped.content_digest(3)
        assert sent.content_digest(3) != skipped.content_digest(4)
        assert sent.linear_checksum() != skipped.linear_checksum()


@pytest.mark.parametrize("length", range(8 + 3 * RECORD_BYTES))
def test_torn_end_is_ignored_and_written_over(path, length):
    with ConfirmedBlocks(path) as ledger:
        ledger.confirm([(index, digest(index)) for index in range(3)])
    path.write_bytes(path.read_bytes()[:length])
    whole = max(0, length - 8) // RECORD_BYTES
    with ConfirmedBlocks(path) as ledger:
        assert ledger.count == whole
        ledger.confirm([(9, digest(9))])
    with ConfirmedBlocks(path) as ledger:
        assert ledger.count == whole + 1
        assert ledger.confirmed(9) == digest(9)


@pytest.mark.parametrize("tail", [bytes(1000), b"x" * 79, bytes(39)])
def test_end_that_a_crash_made_up_is_ignored(path, tail):
    with ConfirmedBlocks(path) as ledger:
        ledger.confirm([(1, digest(1))])
    with path.open("ab") as file:
        file.write(tail)
    with ConfirmedBlocks(path) as ledger:
        assert ledger.count == 1
        ledger.confirm([(2, digest(2))])
    with ConfirmedBlocks(path) as ledger:
        assert (ledger.confirmed(1), ledger.confirmed(2)) == (digest(1), digest(2))


@hypothesis.given(st.binary(max_size=300))
def test_no_bytes_break_a_ledger(tmp_path_factory, tail):
    path = tmp_path_factory.mktemp("ledger") / "ledger"
    path.write_bytes(ledgers.MAGIC + tail)
    with ConfirmedBlocks(path) as ledger:
        assert ledger.count <= len(tail) // RECORD_BYTES


def test_long_ledger_is_read_in_pieces(path):
    with ConfirmedBlocks(path) as ledger:
        ledger.confirm([(index, digest(index % 7)) for index in range(60_000)])
        expected = ledger.linear_checksum()
    with ConfirmedBlocks(path) as ledger:
        assert ledger.linear_checksum() == expected
        assert expected[0] == 60_000


def test_file_that_is_no_ledger_is_left_alone(path):
    path.write_bytes(b"something else")
    with pytest.raises(LocalIOError, match="not a ledger"):
        ConfirmedBlocks(path)
    assert path.read_bytes() == b"something else"


def test_ledger_in_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(LocalIOError, match="No such file"):
        ConfirmedBlocks(tmp_path / "none" / "ledger")


def test_full_disk_is_an_error_and_leaves_no_half_record(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ConfirmedBlocks(path) as ledger:
        ledger.confirm([(0, digest(0))])
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # Python ignores SIGXFSZ
        try:
            with pytest.raises(LocalIOError, match="No space left"):
                ledger.confirm([(1, digest(1)), (2, digest(2))])
            with pytest.raises(LocalIOError, match="No space left"):
                ledger.confirm([(3, digest(3)), (4, digest(4))])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        ledger.confirm([(5, digest(5))])
        assert ledger.count == 2
    with ConfirmedBlocks(path) as ledger:
        assert [ledger.confirmed(index) for index in (0, 1, 5)] == [digest(0), None, digest(5)]


def test_rest_may_hold_zeros_only(path):
    with ConfirmedBlocks(path) as ledger:
        ledger.confirm([(0, digest(0)), (1, ZERO_DIGEST), (3, digest(3))])
        ledger.check_rest(bytearray(b"\1\0\0\1"))
        with pytest.raises(ContentChangedError, match="block 3"):
            ledger.check_rest(bytearray(b"\1\1\1"))


def test_many_threads_may_confirm(path):
    with ConfirmedBlocks(path) as ledger:

        def work(number):
            for index in range(number, 4000, 8):
                ledger.confirm([(index, digest(index))])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = (4000, linear(map(digest, range(4000))))
        assert ledger.linear_checksum() == expected
    with ConfirmedBlocks(path) as ledger:
        assert ledger.linear_checksum() == expected
