import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouduploader.errors import JobFileError
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState

CAPTURED_DIR = Path(__file__).parents[2] / "data" / "jobs"
CAPTURED = sorted(CAPTURED_DIR.glob("*.xml"))
COUNTERS = {"next.xml"}
REFUSED = {
    "created-with-empty-fields.xml": "the size 'abc' is not a number",
    "unparsable-escape-in-details.xml": "line 3 is not XML",
    "unparsable-latin1-in-details.xml": "line 3 is not XML",
}
# The one thing that a reader of XML can't see: which line end it was.
NORMALIZED = {"succeeded-details-with-carriage-return.xml", "user-with-carriage-return.xml"}

FULL = b"""\
<clouduploadjob name="17">
  <state>failed</state>
  <details>two
lines &amp; more</details>
  <progress>40</progress>
  <try>2</try>
  <created>1795361942</created>
  <user>mls&amp;&lt;chroe&gt; "x" o'brien</user>
  <target>ec2</target>
  <project>Base:System</project>
  <repository>images</repository>
  <package>img:Azure</package>
  <arch>x86_64</arch>
  <filename>a &quot;b&quot;.raw.xz</filename>
  <size>70000</size>
  <pid>4711</pid>
</clouduploadjob>
""".replace(b'"x"', b"&quot;x&quot;")

XML_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\ufffe\uffff")).map(
    lambda text: re.sub("[\x00-\x08\x0b-\x1f]", "", text)
)
NUMBER = st.none() | st.integers(min_value=0, max_value=10**18 - 1)


def jobs(text):
    texts = {key: st.none() | text for key in job_xml.ELEMENTS.values() if key not in ("state", "created")}
    numbers = dict.fromkeys(("progress", "try_", "created", "size", "pid"), NUMBER)
    return st.builds(
        Job,
        name=st.integers(min_value=0, max_value=10**18 - 1).map(str),
        state=st.sampled_from(JobState),
        **{**texts, **numbers},
    )


def wrapped(inside, attributes='name="1"'):
    return f"<clouduploadjob {attributes}><state>failed</state>{inside}</clouduploadjob>".encode()


def test_job_with_all_fields_keeps_every_byte():
    job = job_xml.parse(FULL)
    assert job.details == "two\nlines & more"
    assert (job.progress, job.try_, job.created, job.size, job.pid) == (40, 2, 1795361942, 70000, 4711)
    assert job.user == 'mls&<chroe> "x" o\'brien'
    assert job_xml.serialize(job) == FULL


def test_captured_files_are_there():
    assert {path.name for path in CAPTURED} >= {*COUNTERS, *REFUSED, *NORMALIZED, "uploading.xml", "killed.xml"}


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_captured_file_is_read_and_written_as_obs_does(path):
    data = path.read_bytes()
    if path.name in COUNTERS:
        assert job_xml.serialize_next(job_xml.parse_next(data)) == data
    elif path.name in REFUSED:
        with pytest.raises(JobFileError, match=REFUSED[path.name]):
            job_xml.parse(data)
    elif path.name in NORMALIZED:
        assert job_xml.serialize(job_xml.parse(data)) == data.replace(b"\r", b"\n")
    else:
        assert job_xml.serialize(job_xml.parse(data)) == data


@given(jobs(XML_TEXT))
def test_job_survives_a_round_trip(job):
    assert job_xml.parse(job_xml.serialize(job)) == job


@given(jobs(st.text(st.characters())))
def test_job_with_any_text_is_written_readably(job):
    data = job_xml.serialize(job)
    read = job_xml.parse(data)
    assert read.state == job.state
    assert job_xml.serialize(read) == data


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("\x1b[31mred", "\ufffd[31mred"),
        ("b\udce4se", "b\ufffdse"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\x00\uffff", "\ufffd\ufffd"),
        ("tab\tstays", "tab\tstays"),
        ("\x85 \U0001f600", "\x85 \U0001f600"),
    ],
)
def test_text_that_no_xml_can_hold_is_replaced(text, written):
    job = job_xml.parse(job_xml.serialize(Job(name="1", state=JobState.FAILED, details=text)))
    assert job.details == written


def test_attributes_elements_and_order_are_interchangeable():
    data = b'<clouduploadjob size="5" user="tom"><pid>7</pid><name>1</name><state>uploading</state></clouduploadjob>'
    assert job_xml.parse(data) == Job(name="1", state=JobState.UPLOADING, user="tom", size=5, pid=7)


def test_comments_cdata_and_declaration_are_read():
    data = b'<?xml version="1.0"?><!-- a --><clouduploadjob name="1"><state>failed</state>\
<details>a<!-- b --><![CDATA[<c>]]></details></clouduploadjob>'
    assert job_xml.parse(data).details == "a<c>"


def test_absent_and_empty_elements_differ():
    assert job_xml.parse(wrapped("")).details is None
    assert job_xml.parse(wrapped("<details/>")).details == ""
    assert b"<details></details>" in job_xml.serialize(job_xml.parse(wrapped("<details/>")))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "line 1 is not XML: no element found"),
        (b"hello", "line 1 is not XML"),
        (FULL[:200], "line 8 is not XML"),
        (FULL + FULL, "line 18 is not XML: junk after document element"),
        (FULL.replace(b"4711", b"\x00"), "line 16 is not XML"),
        (b"<job/>", "document element must be 'clouduploadjob', was 'job'"),
        (b"<clouduploadjob name='1'/>", "no 'state'"),
        (b"<clouduploadjob><state>failed</state></clouduploadjob>", "no 'name'"),
        (wrapped("<due>1</due>"), "unknown element: due"),
        (wrapped("", 'name="1" due="1"'), "unknown attribute: due"),
        (wrapped("<state>failed</state>"), "element 'state' must be singleton"),
        (wrapped("<name>1</name>"), "element 'name' must be singleton"),
        (wrapped("", 'name="1" name="1"'), "duplicate attribute"),
        (wrapped("<user><b/></user>"), "element 'user' has subelements"),
        (wrapped("<user id='1'/>"), "element 'user' contains attributes"),
        (wrapped("text"), "element 'clouduploadjob' contains content"),
        (wrapped("", 'name="../etc"'), "not a number"),
        (wrapped("", 'name="٣"'), "not a number"),
        (wrapped("", 'name="1&#10;"'), "not a number"),
        (wrapped("<size>-1</size>"), "the size '-1' is not a number"),
        (wrapped("<pid>12 </pid>"), "the pid '12 ' is not a number"),
        (wrapped("<pid></pid>"), "the pid '' is not a number"),
        (wrapped(f"<created>{'9' * 5000}</created>"), "the created '9{40}' is not a number"),
        (FULL.replace(b"failed", b"lost"), "unknown state 'lost'"),
    ],
)
def test_wrong_job_is_refused_with_the_reason(data, reason):
    with pytest.raises(JobFileError, match=reason):
        job_xml.parse(data)


@pytest.mark.parametrize(
    "data",
    [
        b'<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;&a;&a;">]>' + wrapped("<user>&c;</user>"),
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + wrapped("<user>&a;</user>"),
        b'<!DOCTYPE clouduploadjob SYSTEM "http://127.0.0.1:1/x.dtd">' + wrapped(""),
        wrapped("<user>&a;</user>"),
        b"<clouduploadjob>" * 1_000_000,
        b"<clouduploadjob " + b"".join(b"a%d='' " % number for number in range(100_000)) + b"/>",
    ],
)
def test_hostile_xml_is_refused(data):
    with pytest.raises(JobFileError):
        job_xml.parse(data)


@given(st.binary() | st.binary().map(lambda data: FULL[:100] + data + FULL[100:]))
def test_any_bytes_are_a_job_or_an_error(data):
    try:
        job = job_xml.parse(data)
    except JobFileError:
        return
    assert job_xml.parse(job_xml.serialize(job)) == job


@pytest.mark.parametrize("data", [b"", b"<clouduploadjob/>", wrapped(""), b'<clouduploadjob name="-1"/>'])
def test_counter_with_anything_else_is_refused(data):
    with pytest.raises(JobFileError):
        job_xml.parse_next(data)
