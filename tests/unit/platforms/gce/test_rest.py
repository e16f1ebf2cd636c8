import pytest
import requests

from clouduploader.errors import (
    AbsentError,
    CredentialsError,
    DeniedError,
    NetworkError,
    ThrottledError,
    TransientError,
)
from clouduploader.platforms.gce import rest
from clouduploader.platforms.gce.rest import GoogleError


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
    ours = rest.translate(GoogleError(status, reason, "Some words.\nMore of them."), "bucket b")
    assert type(ours) is kind
    assert ours.message == "bucket b: Some words."


def test_disabled_api_is_told_with_what_to_do():
    ours = rest.translate(GoogleError(403, "accessNotConfigured", "It is disabled."), "project p")
    assert "gcloud services enable" in str(ours.hint)


def test_error_of_a_connection_does_not_quote_the_url(google, uploads):
    ctx = uploads().context()
    client = ctx.client
    with pytest.raises(requests.RequestException) as caught:
        client.send("PUT", "http://127.0.0.1:9/upload?upload_id=SECRET")
    assert "SECRET" in str(caught.value)
    ours = rest.translate(caught.value, "object x")
    assert type(ours) is NetworkError
    assert ours.message == "object x: Connection refused"


def test_answer_that_is_no_json_is_told_by_its_status(google, uploads):
    google.faults.replace([{"action": "images.get", "status": 418}])
    with pytest.raises(Exception, match="image my-image: "):
        uploads().run()


def test_error_of_another_library_is_left_alone():
    assert rest.translate(ValueError("x"), "y") is None
    assert rest.translate(DeniedError("x"), "y") is None


def test_listing_goes_on_to_the_last_page(google, uploads):
    for number in range(3):
        uploads(image_name=f"image-{number}").run()
    google.site.compute.page_size = 2
    ctx = uploads().context()
    found = rest.pages(ctx, ctx.client.compute("images"), subject="images", query={})
    assert [image["name"] for image in found] == ["image-0", "image-1", "image-2"]
