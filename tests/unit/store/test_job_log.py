import errno
import io
import itertools
import os
import re
import threading

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.job_logs import TIME, untimed

from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import (
    BytesMoved,
    CloudObject,
    ImageFound,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
)
from clouduploader.store import job_log
from clouduploader.store.job_log import JobLog, LogReading

KINDS = ("key pair", "vpc", "internet gateway", "image", "security group", "file")
things = st.builds(
    CloudObject,
    kind=st.sampled_from(KINDS),
    id=st.from_regex(r"[!-~]+", fullmatch=True),
    region=st.sampled_from(("", "eu-west-1", "us-gov-east-1", "eusc-de-east-1")),
)


class BrokenSink:
    """Takes some bytes, then fails for ever; counts the calls."""

    def __init__(self, error):
        self.error = error
        self.calls = 0

    def write(self, data):
        self.calls += 1
        raise self.error


@pytest.fixture
def make_log():
    """A factory of a log and what is written to it."""

    def make(*, is_verbose=False):
        sink = io.BytesIO()
        return JobLog([sink], is_verbose=is_verbose), sink

    return make


def written(events, *, has_times=False):
    sink = io.BytesIO()
    log = JobLog([sink], is_verbose=False, has_times=has_times)
    for event in events:
        log.event(event)
    return sink.getvalue().decode().splitlines(keepends=True)


def test_line_is_written_at_once_with_one_line_end(make_log):
    log, sink = make_log()
    log.line("Successfully authenticated.\n")
    assert sink.getvalue() == b"Successfully authenticated.\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("a\rb", "a\\rb"),
        ("a\tb", "a b"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x00", "\\x00"),
        ("\x7f\x85.", "\\x7f\\x85."),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("caf\udce9", "caf\\udce9"),
        ("\ufffe\uffff", "\\ufffe\\uffff"),
        ("größe 大", "größe 大"),
        ("trailing \n\n", "trailing"),
    ],
)
def test_line_escapes_what_is_no_text(make_log, text, shown):
    log, sink = make_log()
    log.line(text)
    assert sink.getvalue().decode() == f"{shown}\n"


@hypothesis.given(st.text(st.characters()))
def test_line_is_one_line_of_utf8_whatever_the_text(text):
    sink = io.BytesIO()
    JobLog([sink], is_verbose=False).line(text)
    data = sink.getvalue()
    assert data.endswith(b"\n")
    assert len(data.decode().splitlines()) == 1
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", data)


@hypothesis.given(st.text(st.characters()))
def test_one_line_can_be_put_into_xml(text):
    shown = job_log.one_line(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u2028\u2029]", shown)
    assert job_log.one_line(shown) == shown.strip()


def test_hidden_secret_is_masked_everywhere_in_a_line(make_log):
    log, sink = make_log(is_verbose=True)
    log.hide("sesame")
    log.line("open sesame, sesame!")
    log.detail("sesamesesame")
    log.event(PhaseStarted("sesame"))
    assert sink.getvalue().decode().splitlines() == [
        "open ********, ********!",
        "****************",
        "Phase: ********",
    ]


def test_longer_secret_is_masked_before_one_that_is_part_of_it(make_log):
    log, _sink = make_log()
    log.hide("abc")
    log.hide("abcdef")
    assert log.masked("x abcdef y abc") == "x ******** y ********"


def test_secret_of_several_lines_is_masked(make_log):
    log, sink = make_log()
    log.hide("first\nsecond")
    log.line("key: first\nsecond.")
    assert sink.getvalue() == b"key: ********.\n"


def test_hiding_nothing_masks_nothing(make_log):
    log, _sink = make_log()
    log.hide("")
    assert log.masked("text") == "text"


def test_detail_is_written_only_if_verbose(make_log):
    for is_verbose, expected in ((False, b""), (True, b"why\n")):
        log, sink = make_log(is_verbose=is_verbose)
        log.detail("why")
        assert sink.getvalue() == expected


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), BrokenPipeError()])
def test_sink_that_fails_is_left_out_and_the_others_go_on(error):
    broken, good = BrokenSink(error), io.BytesIO()
    log = JobLog([broken, good], is_verbose=False)
    log.line("one")
    log.line("two")
    assert good.getvalue() == b"one\ntwo\n"
    assert broken.calls == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_what_a_full_disk_does_not_take_comes_with_the_first_line_that_it_takes(number):
    class Disk(io.BytesIO):
        room = 7

        def write(self, data):
            if not self.room:
                raise OSError(number, os.strerror(number))
            count = super().write(data[: self.room])
            self.room -= count
            return count

    disk = Disk()
    log = JobLog([disk], is_verbose=False)
    for text in ("one", "two", "three"):
        log.line(text)
    assert disk.getvalue() == b"one\ntwo"
    disk.room = 100
    log.line("four")
    assert disk.getvalue() == b"one\ntwo\nthree\nfour\n"


def test_log_without_any_sink_still_tells_listeners():
    heard = []
    log = JobLog([], is_verbose=False)
    log.listen(heard.append)
    log.event(BytesMoved(1, 2))
    assert heard == [BytesMoved(1, 2)]


def test_event_is_written_for_people_and_told_to_listeners(make_log, tmp_path):
    log, sink = make_log()
    heard = []
    log.listen(heard.append)
    thing = CloudObject("key pair", "uploadkey.7", "eu-west-1")
    events = [
        ImageFound(Image(tmp_path, "appliance.raw.xz", Compression.XZ, 7)),
        PhaseStarted("upload"),
        ObjectCreated(thing),
        ObjectCreated(CloudObject("file", "/srv/a.raw")),
        BytesMoved(3, None),
        ObjectRemoved(thing),
    ]
    for event in events:
        log.event(event)
    assert heard == events
    assert sink.getvalue().decode().splitlines() == [
        "Start uploading image appliance.raw.xz.",
        "Phase: upload",
        "Created key pair uploadkey.7 in eu-west-1.",
        "Created file /srv/a.raw.",
        "Removed key pair uploadkey.7 in eu-west-1.",
    ]


def test_log_with_times_tells_day_and_zone_first_and_the_time_in_each_line():
    sink = io.BytesIO()
    log = JobLog([sink], is_verbose=False, has_times=True)
    job_log.tell_beginning(log, user="tom", target="ec2")
    log.event(PhaseStarted("upload"))
    log.line("")
    lines = sink.getvalue().decode().splitlines()
    assert all(TIME.match(line) for line in lines)
    first, *rest = untimed("\n".join(lines))
    assert re.fullmatch(r"clouduploader \S+ on [0-9]{4}-[0-9]{2}-[0-9]{2}, times in UTC: user tom, target ec2", first)
    assert rest == ["Phase: upload", ""]


@pytest.mark.parametrize("has_times", [False, True])
@hypothesis.given(steps=st.lists(st.tuples(st.booleans(), things), max_size=12))
def test_read_recovers_what_event_wrote(has_times, steps):
    events = [(ObjectCreated if is_made else ObjectRemoved)(thing) for is_made, thing in steps]
    there = {}
    for is_made, thing in steps:
        if is_made:
            there[thing] = None
        else:
            there.pop(thing, None)
    assert job_log.read(written(events, has_times=has_times)) == LogReading(None, tuple(there))


@pytest.mark.parametrize("name", ["foo", "in", "a", "in.", "...", "foo.in"])
@pytest.mark.parametrize("region", ["", "eu-west-1"])
def test_read_does_not_take_an_id_for_a_part_of_the_kind(name, region):
    thing = CloudObject("key pair", name, region)
    assert job_log.read(written([ObjectCreated(thing)])).objects == (thing,)


@hypothesis.given(st.lists(st.sampled_from(("check image", "upload", "clean up"))))
def test_read_gives_the_last_phase(phases):
    found = job_log.read(written(map(PhaseStarted, phases)))
    assert found == LogReading(phases[-1] if phases else None, ())


@hypothesis.given(st.lists(st.text(st.characters())))
def test_read_never_fails_on_lines_of_others(lines):
    assert isinstance(job_log.read(lines), LogReading)


def test_read_tells_what_was_there_from_what_was_made():
    found = (CloudObject("image", "ami-1", "eu-west-1"), CloudObject("snapshot", "snap-1", "eu-west-1"))
    buffer = io.BytesIO()
    job_log.tell_found(JobLog([buffer], is_verbose=False, has_times=True), found)
    assert job_log.read(buffer.getvalue().decode().splitlines()) == LogReading(None, (), found=found)


def test_read_passes_over_lines_that_only_look_alike():
    lines = ["Created image: ami-1\n", "Created image ami-1", " Created image ami-1.\n", "created image ami-1.\n"]
    assert job_log.read(lines) == LogReading(None, ())


def test_lines_of_several_threads_stay_whole():
    class Pieces:
        """Writes byte by byte, so that a missing lock shows."""

        def __init__(self):
            self.data = bytearray()

        def write(self, data):
            for byte in data:
                self.data.append(byte)

    sink = Pieces()
    log = JobLog([sink], is_verbose=False)
    barrier = threading.Barrier(4)

    def work(letter):
        barrier.wait()
        for _ in range(100):
            log.line(letter * 50)
            log.hide(letter * 60)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = sink.data.decode().splitlines()
    expected = itertools.chain.from_iterable([letter * 50] * 100 for letter in "abcd")
    assert sorted(lines) == sorted(expected)


def test_journal_is_read_back():
    key = "0123456789abcdef0123456789abcdef"
    data = bytearray()

    class Sink:
        def write(self, line):
            data.extend(line)

    job_log.tell_journal(job_log.JobLog([Sink()], is_verbose=False), key)
    assert job_log.read(data.decode().splitlines()).journal_key == key
    assert job_log.read(["Journal: x", f"Journal: {key}0", f" Journal: {key}"]).journal_key is None


def test_listener_hears_what_happens_in_its_block_only():
    log, heard = job_log.JobLog([], is_verbose=False), []
    log.event(PhaseStarted("before"))
    with log.listening(heard.append):
        log.event(PhaseStarted("inside"))
    log.event(PhaseStarted("after"))
    assert heard == [PhaseStarted("inside")]
