import os
import signal
import threading

import pytest

from clouduploader.errors import ConfigError, StoppedError, TransientError
from clouduploader.util import arrival
from clouduploader.util.arrival import FD_VARIABLE, Arrival, ArrivalWriter
from clouduploader.util.cancel import Cancel


@pytest.fixture
def writer():
    with ArrivalWriter() as made:
        yield made


@pytest.fixture
def reader(writer):
    return Arrival(writer.descriptor, Cancel())


def is_there(reader, start, end):
    """Whether a wait would end at once."""
    reader._cancel.request(signal.SIGTERM)
    try:
        reader.wait(start, end)
    except StoppedError:
        return False
    return True


def test_only_what_came_is_there(writer, reader):
    assert is_there(reader, 0, 0)
    assert not is_there(reader, 0, 1)
    writer.have(100)
    assert is_there(reader, 0, 100)
    assert not is_there(reader, 99, 101)
    writer.have_end(500)
    assert is_there(reader, 500, 600)
    assert not is_there(reader, 499, 600)


def test_what_was_there_stays(writer, reader):
    writer.have(100)
    writer.have(50)
    assert is_there(reader, 99, 100)


def test_wait_ends_when_it_comes(writer, reader):
    waiting = threading.Thread(target=reader.wait, args=(0, 10))
    waiting.start()
    writer.have(9)
    writer.have(10)
    waiting.join()


def test_all_is_there_when_the_writer_says_so(writer, reader):
    writer.have(100)
    writer.finish(7)
    assert reader.wait_for_all() == 7
    reader.wait(0, 10**9)
    writer.fail()
    assert reader.wait_for_all() == 7


def test_what_does_not_come_is_told(writer, reader):
    writer.have(100)
    writer.fail()
    reader.wait(0, 100)
    for call in (lambda: reader.wait(0, 101), reader.wait_for_all):
        with pytest.raises(TransientError, match="did not come to its end"):
            call()


def test_file_that_is_not_whole_at_the_end_of_its_writer_has_failed():
    with ArrivalWriter() as writer:
        reader = Arrival(os.dup(writer.descriptor), Cancel())
    with pytest.raises(TransientError):
        reader.wait_for_all()
    os.close(reader._descriptor)


@pytest.mark.parametrize("call", [lambda reader: reader.wait(0, 1), Arrival.wait_for_all])
def test_wait_ends_when_it_is_cancelled(writer, call):
    cancel = Cancel()
    reader = Arrival(writer.descriptor, cancel)
    cancel.request(signal.SIGTERM)
    with pytest.raises(StoppedError):
        call(reader)


def test_environment_names_the_descriptor(writer):
    os.set_inheritable(writer.descriptor, True)
    found = arrival.arrival_of({FD_VARIABLE: str(writer.descriptor)}, Cancel())
    writer.have(5)
    found.wait(0, 5)
    assert not os.get_inheritable(writer.descriptor)
    assert arrival.arrival_of({}, Cancel()) is None


@pytest.mark.parametrize("text", ["x", "-1", "987654", "9" * 30])
def test_what_is_no_descriptor_is_refused(text):
    with pytest.raises(ConfigError, match="not the number of an open descriptor"):
        arrival.arrival_of({FD_VARIABLE: text}, Cancel())


def test_another_file_is_refused(tmp_path):
    with (tmp_path / "x").open("w") as file, pytest.raises(ConfigError):
        arrival.arrival_of({FD_VARIABLE: str(file.fileno())}, Cancel())
