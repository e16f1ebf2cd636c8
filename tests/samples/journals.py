"""The key of a journal, what its upload made, and how tests write and read it."""

import os
from pathlib import Path

from clouduploader.plugin import CloudObject, ObjectCreated
from clouduploader.store import journal

KEY = "0123456789abcdef0123456789abcdef"
SNAPSHOT = CloudObject("snapshot", "snap-1", "eu-west-1")
IMAGE = CloudObject("image", "ami-1", "eu-west-1")
BEGINNING = journal.UploadStart(
    job="42", user="caf\udce9", target="ec2", filename="a.raw", image_path=Path("/srv/42.file"), is_by_hand=False,
    work_dir=Path("/var/tmp/x"),  # noqa: S108 only a name
)  # fmt: skip


def read(state_dir):
    """The journal of KEY, which must be there."""
    found = journal.read(state_dir, KEY)
    assert found is not None
    return found


def whats(entries):
    """What each entry is."""
    return [entry["what"] for entry in entries]


def end(attempt, key, outcome, job="42", things=()):
    """Make a journal as a try leaves it, an hour ago; `attempt` is the fixture."""
    with attempt(key=key) as opened:
        for thing in things:
            opened.take(ObjectCreated(thing))
        if outcome:
            opened.end(outcome)
        opened.write("mine", job=job)
    path = opened.directory.parent / "journal"
    os.utime(path, (path.stat().st_mtime - 3600,) * 2)
