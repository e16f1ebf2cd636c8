import dataclasses
import datetime
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

import clouduploader
from clouduploader.model.disk import Compression, Image
from clouduploader.platforms.ec2 import fields, labels
from clouduploader.plugin.labels import PROVENANCE
from clouduploader.plugin.testing import MemoryJournal, make_request

KEY = MemoryJournal.key
MOMENT = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
IMAGE = Image(Path("42.file"), "a", Compression.RAW, 1)


def own(*, job_name=None, filename="a", provenance=()):
    request = make_request(dataclasses.replace(IMAGE, filename=filename), {}, Path("/none"))
    return labels.own(dataclasses.replace(request, job_name=job_name, provenance=dict(provenance)), MOMENT)


def test_own_tags_tell_whose_a_thing_is():
    provenance = {"project": "p", "package": "q", "arch": "x86_64", "other": "x"}
    assert own(job_name="7", filename="a.raw.xz", provenance=provenance) == {
        "clouduploader:key": KEY,
        "clouduploader:job": "7",
        "clouduploader:project": "p",
        "clouduploader:package": "q",
        "clouduploader:arch": "x86_64",
        "clouduploader:filename": "a.raw.xz",
        "clouduploader:version": clouduploader.__version__,
        "clouduploader:started": "2026-11-22T12:00:00+00:00",
    }


def test_own_tags_without_a_job_are_few():
    assert set(own()) == {labels.KEY, "clouduploader:filename", "clouduploader:version", labels.STARTED}


@hypothesis.given(st.text(), st.text())
def test_values_of_own_tags_are_such_as_aws_takes(filename, project):
    found = own(filename=filename, provenance={"project": project})
    assert all(value.isprintable() and 1 <= len(value) <= 255 for value in found.values())


@pytest.mark.parametrize("count", [0, 30, fields.MAX_TAGS])
def test_tags_of_the_user_and_essential_ones_always_fit(count):
    users = {f"t{number}": str(number) for number in range(count)}
    ours = own(job_name="7", provenance=dict.fromkeys(PROVENANCE, "x"))
    first = labels.joined(ours, users)
    last = labels.joined({**ours, labels.SHA256: "s", labels.CONTENT: "c"}, users)
    for found in (first, last):
        assert users.items() <= found.items()
        assert len(found) <= 50
    assert first[labels.KEY] == last[labels.KEY] == KEY
    assert (last[labels.SHA256], last[labels.CONTENT]) == ("s", "c")
    assert set(first) <= set(last)


def test_tags_survive_the_way_through_an_api():
    found = {"a": "1", "b": ""}
    assert labels.as_mapping(labels.as_list(found)) == found
    assert labels.as_mapping(None) == {}
