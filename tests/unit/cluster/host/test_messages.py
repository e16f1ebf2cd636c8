import json

import pytest
from kombu.message import Message

from clouduploader.cluster import protocol
from clouduploader.cluster.host import messages

URL = "https://upload.example.org"
HEADERS = {"task": protocol.TASK, "id": "made-up", "lang": "py"}


def message(body, headers=HEADERS, **properties):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(body=data, headers=headers, properties=properties, content_type="application/json")


def test_message_of_a_server_is_left_with_what_a_server_says():
    found = message(
        [["7", 1, URL], {}, {"callbacks": [{"task": "x"}]}],
        HEADERS | {"timelimit": [1, 1], "eta": "9999-01-01", "argsrepr": "x" * 10**6},
        reply_to="queue",
    )
    assert messages.clean(found)
    assert json.loads(found.body) == [["7", 1, URL], {}, {}]
    assert (found.headers["task"], found.headers["id"]) == (protocol.TASK, "7-1")
    assert not {"timelimit", "eta"} & set(found.headers)
    assert found.properties == {"correlation_id": "7-1"}


@pytest.mark.parametrize(
    "body",
    [b"no json", b"[" * 100_000, b"9" * 4090, b"\xff", b"", {"a": 1}, [], None, [{}, {}, {}], [["7", 1], {}, {}],
     [["7", 1, URL]],
     [["../7", 1, URL], {}, {}], [["1" * 19, 1, URL], {}, {}], [["\N{ARABIC-INDIC DIGIT SEVEN}", 1, URL], {}, {}],
     [[7, 1, URL], {}, {}], [["7", "1", URL], {}, {}], [["7", 0, URL], {}, {}], [["7", True, URL], {}, {}],
     [["7", 2**53, URL], {}, {}], [["7", 1, None], {}, {}], [["7", 1, 5], {}, {}], [["7", 1, "x" * 5000], {}, {}]],
)  # fmt: skip
def test_message_of_no_server_is_refused(body):
    assert not messages.clean(message(body))


@pytest.mark.parametrize("headers", [{}, {"task": "celery.starmap"}, {"task": [protocol.TASK]}])
def test_message_for_another_task_is_refused(headers):
    assert not messages.clean(message([["7", 1, URL], {}, {}], headers))
