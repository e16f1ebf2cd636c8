import threading

import pytest

from clouduploader.plugin.transfer import ahead


def test_all_parts_come_in_order_and_the_next_is_made_meanwhile():
    made = threading.Event()

    def parts():
        yield b""
        made.set()
        yield b"2"

    found = ahead(parts())
    assert next(found) == b""
    assert made.wait(20)
    assert list(found) == [b"2"]


def test_error_comes_in_the_place_of_its_part():
    def parts():
        yield 1
        raise ValueError("two")

    found = ahead(parts())
    assert next(found) == 1
    with pytest.raises(ValueError, match="two"):
        next(found)


def test_closed_it_leaves_no_thread():
    found = ahead(iter(range(9)))
    next(found)
    found.close()
    assert "ahead" not in " ".join(thread.name for thread in threading.enumerate())
