import datetime

import pytest

from clouduploader.client import cluster_status

TIME = "2026-11-29T12:00:00Z"
HOST = {"name": "a", "version": "1.0", "protocol": 1, "slots": 2, "busy": 1, "queues": ["uploads"], "seen": TIME,
        "skew_seconds": 0, "draining": False, "gone": False}  # fmt: skip
QUEUE = {"name": "uploads", "published": 0, "oldest": None, "waiting": None}
LEASE = {"job": "7", "user": None, "host": "a", "attempt": 2, "takeovers": 1, "since": TIME, "until": TIME,
         "queue": "uploads"}  # fmt: skip
DOCUMENT = {"hosts": [HOST], "queues": [QUEUE], "leases": [LEASE], "later": 1}


def test_answer_is_read():
    found = cluster_status.parse(DOCUMENT)
    (host,), (queue,), (lease,) = found.hosts, found.queues, found.leases
    assert (host.queues, host.skew_seconds, host.gone) == (("uploads",), 0.0, False)
    assert host.seen == datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC)
    assert (queue.oldest, queue.waiting) == (None, None)
    assert (lease.job, lease.user, lease.attempt) == ("7", None, 2)


@pytest.mark.parametrize(
    ("key", "changes"),
    [("hosts", {"slots": True}), ("hosts", {"slots": "2"}), ("hosts", {"slots": None}), ("hosts", {"draining": 1}),
     ("hosts", {"queues": "uploads"}), ("hosts", {"queues": [1]}), ("hosts", {"seen": "soon"}),
     ("hosts", {"seen": "2026-11-29T12:00:00"}), ("hosts", {"seen": None}), ("hosts", {"skew_seconds": "0"}),
     ("queues", {"oldest": 5}), ("leases", {"job": 7}), ("leases", {"until": None})],
)  # fmt: skip
def test_entry_that_makes_no_sense_is_refused(key, changes):
    with pytest.raises(ValueError, match=r" is no |Invalid isoformat"):
        cluster_status.parse(DOCUMENT | {key: [DOCUMENT[key][0] | changes]})


@pytest.mark.parametrize("found", [None, {}, "a", [1], [[]]])
def test_answer_without_lists_is_refused(found):
    with pytest.raises(ValueError, match="no list"):
        cluster_status.parse(DOCUMENT | {"leases": found})
