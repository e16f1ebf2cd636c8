import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouduploader.errors import JobFileError
from clouduploader.model import job_xml, server_xml
from clouduploader.model.job import Job, JobState

JOB = Job(name="7", state=JobState.SUCCEEDED, details="a\n<b> & é", user="tom", size=5)


def listed(*jobs):
    """A list as OBS's server writes it."""
    inside = "".join(re.sub("(?m)^(?=[ <])", "  ", job) for job in jobs)
    return f"<clouduploadjoblist>\n{inside}</clouduploadjoblist>\n".encode()


def test_list_gives_its_jobs_in_order():
    other = Job(name="12", state=JobState.FAILED, user="ann")
    data = listed(job_xml.serialize(other).decode(), job_xml.serialize(JOB).decode())
    assert list(server_xml.parse_list(data)) == [("12", other), ("7", JOB)]


@pytest.mark.parametrize(
    "data", [listed(), b"<clouduploadjoblist/>", b"<?xml version='1.0'?>\n<clouduploadjoblist></clouduploadjoblist>"]
)
def test_empty_list_is_empty(data):
    assert list(server_xml.parse_list(data)) == []


def test_jobs_may_stand_side_by_side():
    one, two = b'<clouduploadjob name="1" state="failed"/>', b'<clouduploadjob state="created" name="2"/>'
    data = b"<clouduploadjoblist>" + one + two + b"</clouduploadjoblist>"
    assert [(name, job.state) for name, job in server_xml.parse_list(data)] == [("1", "failed"), ("2", "created")]


def test_wrong_job_does_not_keep_the_others_back():
    wrong = ['<clouduploadjob name="1"/>', '<job name="2"/>', '<clouduploadjob name="3" state="x"/>', "<a/>"]
    found = dict(server_xml.parse_list(listed(*wrong, job_xml.serialize(JOB).decode())))
    assert found.pop("7") == JOB
    assert found.keys() == {"1", "2", "3"}
    assert all(isinstance(fault, JobFileError) for fault in found.values())


@pytest.mark.parametrize(
    "data",
    [
        b"", b"<", b"<clouduploadjob/>", b"<clouduploadjoblist>", b"<clouduploadjoblist>x</clouduploadjoblist>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><clouduploadjoblist/>', b"<clouduploadjoblist/><a/>", b"\xff",
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused(data):
    with pytest.raises(JobFileError):
        list(server_xml.parse_list(data))


def test_reply_gives_attributes_and_texts():
    data = b'<status code="404">\n  <summary>no &amp; no</summary>\n  <details>a\nb</details>\n</status>\n'
    assert server_xml.parse_reply(data, "status") == {"code": "404", "summary": "no & no", "details": "a\nb"}


@pytest.mark.parametrize(
    "data", [b"", b"<status", b"<html/>", b'<!DOCTYPE status [<!ENTITY b "c">]><status>&b;</status>']
)
def test_what_is_no_reply_is_refused(data):
    with pytest.raises(JobFileError):
        server_xml.parse_reply(data, "status")


NAMES = st.sampled_from(["clouduploadjoblist", "clouduploadjob", "state", "name", "x"])
TAGS = st.builds("<{}>".format, NAMES) | st.builds("</{}>".format, NAMES) | st.builds('<{} name="1"/>'.format, NAMES)
PIECES = st.lists(TAGS | st.text(max_size=3), max_size=12).map(
    lambda pieces: "".join(pieces).encode("utf-8", "replace")
)


@given(PIECES | st.binary(max_size=40))
def test_whatever_comes_is_a_reply_or_refused(data):
    try:
        found = server_xml.parse_reply(data, "x")
    except JobFileError:
        return
    assert data.lstrip().startswith(b"<x")
    assert all(isinstance(text, str) for text in found.values())


@given(PIECES.map(lambda inside: b"<clouduploadjoblist>" + inside + b"</clouduploadjoblist>"))
def test_whatever_is_in_a_list_is_read_or_refused(data):
    try:
        found = list(server_xml.parse_list(data))
    except JobFileError:
        return
    assert all(job_xml.NAME.fullmatch(name) for name, _ in found)
