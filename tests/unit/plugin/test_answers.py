import pytest

from clouduploader.errors import PlatformReplyError
from clouduploader.plugin import answers


def test_object_is_read_without_what_is_null():
    assert answers.read_object(b'{"a": 1, "b": null}', "x", members={"a": int, "b": dict}) == {"a": 1}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is no JSON object"),
        (b"<html>", "is no JSON object"),
        (b"\xff", "is no JSON object"),
        (b"[]", "is no JSON object"),
        (b"[" * 100_000, "is no JSON object"),
        (b"{}", "has no id"),
        (b'{"id": null}', "has no id"),
        (b'{"id": 1}', "id is of another type"),
        (b'{"id": "i", "properties": []}', "properties is of another type"),
    ],
)
def test_anything_else_is_told(data, words):
    with pytest.raises(PlatformReplyError, match=f"image x: .*{words}"):
        answers.read_object(data, "image x", members={"id": str, "properties": dict}, needed=("id",))
