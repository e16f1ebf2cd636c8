import pytest

from clouduploader.client.cluster import Claim
from clouduploader.cluster import protocol
from clouduploader.cluster.host.mirror import Mirror
from tests.fakes.cluster_server import ClusterJob, FakeCluster

CLAIM = Claim("7", 1, "a" * 32)


@pytest.fixture
def cluster():
    fake = FakeCluster()
    fake.jobs["7"] = ClusterJob(image=b"", data={})
    fake.client().claim(CLAIM)
    yield fake
    fake.close()


@pytest.fixture
def job(cluster):
    return cluster.jobs["7"]


@pytest.fixture
def mirror(cluster, tmp_path):
    with Mirror(cluster.client(), CLAIM, journal_dir=tmp_path / "journal", log=tmp_path / "7.log") as mirror:
        yield mirror


@pytest.fixture
def platform_dir(tmp_path):
    path = tmp_path / "journal/platform"
    path.mkdir(parents=True)
    return path


def test_only_what_has_grown_is_sent_and_the_journal_last(cluster, job, mirror, platform_dir):
    journal = platform_dir.parent / "journal"
    journal.write_bytes(b"one\n")
    (platform_dir / "s.confirmed").write_bytes(b"abc")
    mirror.send_journal()
    assert [query["file"] for path, query, *_ in cluster.requests if path.endswith("journal")] == [
        "platform/s.confirmed", "journal",
    ]  # fmt: skip
    with journal.open("ab") as file:
        file.write(b"two\nto")
    with (platform_dir / "s.confirmed").open("ab") as file:
        file.write(b"de")
    mirror.send_journal()
    assert job.journal == {"journal": b"one\ntwo\n", "platform/s.confirmed": b"abcde"}  # without the torn line
    assert [body for *_, body, _ in cluster.requests[-2:]] == [b"de", b"two\n"]
    mirror.send_journal()
    assert len(cluster.requests) == 5


def test_replaced_and_removed_files_are_replaced_and_removed(job, mirror, platform_dir):
    path = platform_dir / "session"
    path.write_bytes(b"a long one")
    mirror.send_journal()
    (platform_dir / ".session.new").write_bytes(b"other")
    mirror.send_journal()
    assert job.journal == {"platform/session": b"a long one"}
    (platform_dir / ".session.new").replace(path)
    mirror.send_journal()
    assert job.journal == {"platform/session": b"other"}
    path.write_bytes(b"")
    mirror.send_journal()
    assert job.journal == {"platform/session": b""}
    path.unlink()
    mirror.send_journal()
    assert job.journal == {}


def test_journal_of_an_earlier_attempt_is_fetched_and_not_sent_again(cluster, job, mirror, tmp_path):
    job.journal = {"journal": b"one\n", "platform/s.confirmed": b"abc"}
    mirror.fetch({"journal": 4, "platform/s.confirmed": 3})
    assert (tmp_path / "journal/platform/s.confirmed").read_bytes() == b"abc"
    with (tmp_path / "journal/journal").open("ab") as file:
        file.write(b"two\n")
    before = len(cluster.requests)
    mirror.send_journal()
    assert [body for *_, body, _ in cluster.requests[before:]] == [b"two\n"]
    assert job.journal["journal"] == b"one\ntwo\n"


def test_log_is_sent_in_pieces(job, mirror, tmp_path):
    text = b"0123456789abcdef" * (protocol.MAX_PIECE_BYTES // 16) + b"end\n"
    (tmp_path / "7.log").write_bytes(text)
    mirror.send_log()
    assert job.log == text


def test_nothing_is_sent_of_what_is_not_there(cluster, mirror):
    mirror.send_journal()
    assert len(cluster.requests) == 1
