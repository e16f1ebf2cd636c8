import base64
import random

import google_crc32c
import pytest
from fakes.google_cloud import BUCKET

from .conftest import refusal

GRANULE = 256 << 10
DATA = random.Random(1).randbytes(3 * GRANULE + 100)  # noqa: S311


def begin(client, name="x", **params):
    return client.ask(
        "POST",
        "storage",
        f"upload/storage/v1/b/{BUCKET}/o",
        params={"uploadType": "resumable", **params},
        json={"name": name},
    )


def put(client, uri, first, last, total="*", **headers):
    ranged = f"bytes {first}-{last}/{total}" if first is not None else f"bytes */{total}"
    data = DATA[first : last + 1] if first is not None else b""
    return client.ask("PUT", "", uri, data=data, headers={"Content-Range": ranged, **headers})


@pytest.fixture
def uri(client):
    return begin(client).headers["Location"]


def test_chunks_make_an_object_with_its_digest(google, client, uri):
    assert put(client, uri, None, None).headers.get("Range") is None
    answer = put(client, uri, 0, GRANULE - 1)
    assert (answer.status_code, answer.headers["Range"]) == (308, f"bytes=0-{GRANULE - 1}")
    made = put(client, uri, GRANULE, len(DATA) - 1, len(DATA)).json()
    crc32c = base64.b64encode(google_crc32c.value(DATA).to_bytes(4, "big")).decode()
    assert (made["size"], made["crc32c"]) == (str(len(DATA)), crc32c)
    assert google.objects() == ["x"]
    assert put(client, uri, None, None).json()["crc32c"] == crc32c  # a session that is complete still tells


@pytest.mark.parametrize(
    ("first", "last", "total"),
    [(0, 99, "*"), (GRANULE, 2 * GRANULE - 1, "*"), (0, GRANULE, "*")],
    ids=["no whole granule", "a gap", "a byte too many"],
)
def test_chunk_that_is_none_is_refused(client, uri, first, last, total):
    assert refusal(put(client, uri, first, last, total)) == (400, "badRequest")


def test_chunk_without_a_range_is_refused(client, uri):
    assert refusal(client.ask("PUT", "", uri, data=b"x")) == (400, "badRequest")


def test_wrong_checksum_makes_no_object(google, client, uri):
    answer = put(client, uri, 0, len(DATA) - 1, len(DATA), **{"X-Goog-Hash": "crc32c=AAAAAA=="})
    assert answer.status_code == 400
    assert google.objects() == []


def test_session_that_was_given_up_is_gone(client, uri):
    assert client.ask("DELETE", "", uri).status_code == 499
    assert put(client, uri, 0, GRANULE - 1).status_code == 499


def test_unknown_session_is_not_found(client, uri):
    assert refusal(put(client, f"{uri}x", 0, GRANULE - 1)) == (404, "notFound")


def test_name_that_is_taken_is_refused_where_it_must_be_free(client, uri):
    put(client, uri, 0, len(DATA) - 1, len(DATA))
    assert refusal(begin(client, ifGenerationMatch="0")) == (412, "conditionNotMet")
    assert begin(client).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", f"storage/v1/b/{BUCKET}/o", "storage.objects.list"),
        ("GET", f"storage/v1/b/{BUCKET}/o/x", "storage.objects.get"),
        ("DELETE", f"storage/v1/b/{BUCKET}/o/x", "storage.objects.delete"),
    ],
)
def test_each_call_needs_its_right(google, client, method, path, right):
    rights = google.site.identity.rights
    google.site.identity.rights = {**rights, "bucket": [one for one in rights["bucket"] if one != right]}
    answer = client.ask(method, "storage", path)
    assert refusal(answer) == (403, "forbidden")
    assert right in answer.text


def test_other_bucket_is_not_there(client):
    assert refusal(client.ask("GET", "storage", "storage/v1/b/other/o")) == (404, "notFound")
