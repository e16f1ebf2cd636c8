import contextlib
import json

import pytest
from fakes.scripted_server import ScriptedServer, answer, ok

from clouduploader.errors import (
    AbsentError,
    CredentialsError,
    DeniedError,
    NetworkError,
    PlatformReplyError,
    ThrottledError,
    TransientError,
)
from clouduploader.platforms.gce import images, rest, staging
from clouduploader.plugin import http, tokens


def refusal(status, reason, message):
    document = {"error": {"message": message, "errors": [{"reason": reason}]}}
    return rest.error(http.Answer(status, {}, json.dumps(document).encode()), "bucket b")


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (403, "rateLimitExceeded", ThrottledError),
        (403, "userRateLimitExceeded", ThrottledError),
        (429, "", ThrottledError),
        (403, "forbidden", DeniedError),
        (401, "authError", CredentialsError),
        (404, "notFound", AbsentError),
        (400, "resourceNotReady", TransientError),
        (503, "backendError", TransientError),
    ],
)
def test_error_is_what_google_means_by_it(status, reason, kind):
    ours = refusal(status, reason, "Some words.\nMore of them.")
    assert type(ours) is kind
    assert ours.message == "bucket b: Some words" + (f" ({reason})" if reason else "")


def test_name_that_was_taken_meanwhile_is_told_with_what_to_do():
    ours = refusal(409, "alreadyExists", "The resource 'projects/p/global/images/i' already exists")
    assert type(ours) is PlatformReplyError
    assert "choose another name" in str(ours.hint)


def test_disabled_api_is_told_with_what_to_do():
    ours = refusal(403, "accessNotConfigured", "It is disabled.")
    assert "gcloud services enable" in str(ours.hint)


def test_error_of_a_connection_does_not_quote_the_url(google, uploads):
    ctx = uploads().context()
    with pytest.raises(NetworkError) as caught:
        rest.send(ctx, "PUT", "http://127.0.0.1:9/upload?upload_id=SECRET", subject="object x")
    assert caught.value.message == "object x: the connection failed: Connection refused"


def test_answer_that_is_no_json_is_told_by_its_status(google, uploads):
    google.faults.replace([{"action": "images.get", "status": 418}])
    with pytest.raises(Exception, match="image my-image: "):
        uploads().run()


class FixedTokens(tokens.Tokens):
    """Always the same token."""

    def ask(self, scope):
        return "the-token", 3600.0


@pytest.fixture
def connect(uploads):
    """Return a function that makes the context of an upload into what a scripted server answers."""

    def connect(server):
        ctx = uploads().context()
        client, given = http.HttpClient({}, 1), FixedTokens(ctx)
        ctx.client = rest.Client(client, given, project="p", api_url=f"{server.url}/{{service}}")
        return ctx

    return connect


@pytest.fixture
def serve():
    """Return a function that starts a scripted server."""
    with contextlib.ExitStack() as stack:
        yield lambda *answers: stack.enter_context(contextlib.closing(ScriptedServer(answers)))


def test_session_elsewhere_gets_neither_the_token_nor_the_disk(connect, serve):
    other = serve(ok(b"{}"))
    google = serve(ok(b"{}", f"Location: {other.url}/upload?upload_id=1"))
    with pytest.raises(PlatformReplyError, match="not where in its API it goes on"):
        staging.upload(connect(google))
    assert (len(google.requests), other.requests) == (1, [])


@pytest.mark.parametrize("status", ["301 Moved Permanently", "307 Temporary Redirect"])
def test_redirection_is_not_followed(connect, serve, status):
    other = serve(ok(b"{}"))
    google = serve(answer(status, b"", f"Location: {other.url}/"))
    with pytest.raises(PlatformReplyError, match=f"image x: HTTP status {status[:3]}"):
        images.lookup(connect(google), "x")
    assert other.requests == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"\xff"])
def test_answer_that_is_no_object_is_told(connect, serve, body):
    with pytest.raises(PlatformReplyError, match="image x: the answer is no JSON object"):
        images.lookup(connect(serve(ok(body))), "x")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"name": "o"}', "it is None, and will not be DONE"),
        (b'{"name": "o", "status": "DONE", "error": []}', "error is of another type"),
        (b'{"name": "o", "status": "DONE", "error": {"errors": [1]}}', "is no JSON object"),
    ],
)
def test_operation_that_makes_no_sense_is_told(connect, serve, body, words):
    with pytest.raises(PlatformReplyError, match=words):
        images.await_operation(connect(serve(ok(body))), {"name": "o"}, subject="image x")


def test_error_of_another_library_is_left_alone(uploads):
    assert uploads().platform.translate(ValueError("x"), "y") is None
    assert uploads().platform.translate(DeniedError("x"), "y") is None


def test_listing_goes_on_to_the_last_page(google, uploads):
    for number in range(3):
        uploads(image_name=f"image-{number}").run()
    google.site.compute.page_size = 2
    ctx = uploads().context()
    found = rest.pages(ctx, ctx.client.compute("images"), subject="images", query={})
    assert [image["name"] for image in found] == ["image-0", "image-1", "image-2"]
