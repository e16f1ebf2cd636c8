import math

import pytest

from clouduploader.cluster.host import claimed
from clouduploader.errors import PlatformReplyError

ANSWER = {
    "lease_seconds": 30,
    "beat_seconds": 5,
    "grace_seconds": 900,
    "job": {"user": "tom", "target": "ec2", "filename": "a.raw", "size": 4, "created": 1, "try": None},
    "data": {"key": "made-up-secret"},
    "secrets": ["made-up-secret"],
    "image": {"size": 4, "sha256": "0" * 64},
    "journal": {"key": "0" * 32, "files": {"journal": 5, "platform/snap-1.confirmed": 7}},
}


def test_answer_is_read():
    found = claimed.read("7", ANSWER)
    assert (found.job.name, found.job.user, found.job.size, found.job.arch) == ("7", "tom", 4, None)
    assert found.journal_files == {"journal": 5, "platform/snap-1.confirmed": 7}
    assert "made-up-secret" not in repr(found)


@pytest.mark.parametrize(
    ("key", "value"),
    [("job", None), ("job", {"user": 7}), ("job", {"size": "4"}), ("lease_seconds", 0), ("lease_seconds", None),
     ("data", 5), ("image", {"size": 4, "sha256": "made-up-secret"}), ("image", {"size": 4, "sha256": None}),
     ("image", {"size": -1, "sha256": "0" * 64}), ("image", {"size": math.inf, "sha256": "0" * 64}),
     ("image", {"size": 1 << 60, "sha256": "0" * 64}), ("lease_seconds", math.inf), ("beat_seconds", math.nan),
     ("grace_seconds", -1), ("grace_seconds", 10**400), ("job", {"user": "a\0b"}), ("job", {"filename": "\ud800"}),
     ("journal", {"key": "0" * 32, "files": {"journal": math.inf}}),
     ("journal", {"key": "../../etc", "files": {}}), ("journal", {"key": "0" * 32, "files": ["journal"]}),
     ("journal", {"key": "0" * 32, "files": {"platform/../../../x": 1}}),
     ("journal", {"key": "0" * 32, "files": {"platform/.new": 1}}),
     ("journal", {"key": "0" * 32, "files": {f"platform/{number}": 1 for number in range(2000)}}),
     ("journal", {"key": "0" * 32, "files": {"targetdata": 1}})],
)  # fmt: skip
def test_answer_that_makes_no_sense_is_refused_and_not_shown(key, value):
    with pytest.raises(PlatformReplyError, match="makes no sense") as caught:
        claimed.read("7", ANSWER | {key: value})
    assert "made-up-secret" not in caught.value.message
