"""Our XML against the Perl server's: what the one writes, the other reads, and means the same."""

import dataclasses

import pytest
from e2e.obs.obs_backend import BackendError
from e2e.obs.obs_capture import DATA_DIR
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clouduploader.errors import JobFileError
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState

pytestmark = pytest.mark.obs

NOT_JOBS_TO_US = {
    "created-with-empty-fields.xml",  # its size is `abc`
    "next-killed.xml",  # the server's `next` is a job by its content alone, and is no job to us
}
"""Captured files that the server reads as jobs, and we don't."""

HEAD = b'<clouduploadjob name="7"><state>failed</state>'
SAME = {
    "attributes": b'<clouduploadjob name="7" state="failed" user="a &amp; b" size="12"/>',
    "name-as-element": b"<clouduploadjob><name>7</name><state>failed</state></clouduploadjob>",
    "any-order": b'<clouduploadjob name="7"><size>1</size><user>u</user><state>failed</state></clouduploadjob>',
    "references": HEAD + b"<user>&#65;&#x1F680;&#10;&#9;&apos;</user></clouduploadjob>",
    "cdata": HEAD + b"<user><![CDATA[<a>&amp;]]></user></clouduploadjob>",
    "comments": HEAD + b"<!-- a --><user>x<!-- b -->y</user></clouduploadjob><!-- c -->",
    "processing-instruction": HEAD + b"<?php x ?><user>x<?y z?>y</user></clouduploadjob>",
    "declaration": b'<?xml version="1.0"?>\n' + HEAD + b"</clouduploadjob>",
    "byte-order-mark": b"\xef\xbb\xbf" + HEAD + b"</clouduploadjob>",
    "empty-element": HEAD + b"<user/><details></details></clouduploadjob>",
    "blanks-that-count": HEAD + b"<user>  </user><details>\n\t</details></clouduploadjob>",
    "attribute-blanks": b'<clouduploadjob name="7" state="failed" user=" a\tb\nc "/>',
}
"""Job files that OBS would never write, but that it reads."""
WRONG = {
    "unknown-element": HEAD + b"<due>1</due></clouduploadjob>",
    "unknown-attribute": b'<clouduploadjob name="7" state="failed" due="1"/>',
    "repeated-element": HEAD + b"<user>a</user><user>b</user></clouduploadjob>",
    "attribute-and-element": b'<clouduploadjob name="7" user="a"><user>b</user></clouduploadjob>',
    "other-root": b'<job name="7"><state>failed</state></job>',
    "text-between": HEAD + b"text</clouduploadjob>",
    "nested": HEAD + b"<user><b>x</b></user></clouduploadjob>",
    "attribute-of-element": HEAD + b'<user a="b">x</user></clouduploadjob>',
    "cut-off": HEAD,
    "more-behind": HEAD + b"</clouduploadjob><x/>",
    "empty": b"",
    "no-xml": b"hello",
    "escape": HEAD + b"<user>\x1b[31m</user></clouduploadjob>",
    "escape-as-reference": HEAD + b"<user>&#27;</user></clouduploadjob>",
    "latin-1": HEAD + b"<user>\xe4</user></clouduploadjob>",
    "surrogate": HEAD + b"<user>\xed\xa0\x80</user></clouduploadjob>",
    "unknown-entity": HEAD + b"<user>&x;</user></clouduploadjob>",
}
"""Job files that neither reads."""


@pytest.fixture
def archive(script_backend):
    """Put a job file into the archive, and return what the server says of it; None for nothing."""

    def read(name: str, content: bytes) -> bytes | None:
        (script_backend.spool / "done").mkdir(exist_ok=True)
        (script_backend.spool / "done" / name).write_bytes(content)
        try:
            return script_backend.status_xml(name)
        except BackendError:
            return None

    return read


def parsed(content: bytes) -> Job | None:
    try:
        return job_xml.parse(content)
    except JobFileError:
        return None


def test_captured_job_files_mean_the_same_to_us(archive):
    ours, theirs = {}, {}
    for path in DATA_DIR.glob("*.xml"):
        if path.name not in NOT_JOBS_TO_US | {"next.xml"}:
            answer = archive("7", path.read_bytes())
            theirs[path.name] = answer and job_xml.parse(answer)
            ours[path.name] = parsed(path.read_bytes())

    assert ours == theirs
    assert {name for name, job in ours.items() if job is None} == {
        "unparsable-escape-in-details.xml",
        "unparsable-latin1-in-details.xml",
    }


def test_strange_job_files_mean_the_same_to_us(archive):
    theirs = {name: archive("7", content) for name, content in SAME.items()}

    assert None not in theirs.values()
    assert {name: parsed(content) for name, content in SAME.items()} == {
        name: job_xml.parse(answer) for name, answer in theirs.items()
    }


def test_wrong_job_files_are_wrong_to_both(archive):
    assert {name: archive("7", content) for name, content in WRONG.items()} == dict.fromkeys(WRONG)
    assert {name: parsed(content) for name, content in WRONG.items()} == dict.fromkeys(WRONG)


texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=20) | st.text("&<>\"'] \t\n\r\x1b", max_size=5)
numbers = st.none() | st.integers(0, 10**18 - 1)
jobs = st.builds(
    Job,
    name=st.just("7"),
    state=st.sampled_from(JobState),
    **{
        field.name: numbers if "int" in str(field.type) else texts
        for field in dataclasses.fields(Job)
        if field.name not in ("name", "state")
    },
)


@given(jobs=st.lists(jobs, min_size=8, max_size=8))
# One backend serves all examples.
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_we_write_the_server_reads_and_writes_alike(archive, jobs):
    written = [job_xml.serialize(job) for job in jobs]

    assert [archive("7", content) for content in written] == written
