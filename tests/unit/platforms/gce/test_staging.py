import json
import signal
import stat

import pytest

from clouduploader.errors import CredentialsError, DeniedError, PlatformReplyError, StoppedError, TransientError
from clouduploader.plugin import ObjectCreated
from clouduploader.util.cancel import Cancel

CHUNKS = 6  # five MiB of noise, and some more
GONE = "Beginning the archive anew"


@pytest.fixture
def made(uploads):
    return uploads()


def began(google):
    """How many sessions were begun."""
    return len(google.calls("objects.insert"))


def sent(google):
    """How many chunks, and questions after them, were answered."""
    return len([call for call in google.calls("objects.upload") if call["status"] in (200, 308)])


def assert_made(google, made):
    assert made.run().id == "my-image"
    assert (list(google.site.compute.images), google.objects(), google.site.storage.sessions) == (["my-image"], [], [])


def test_archive_goes_in_chunks_and_is_removed_when_the_image_is_made(google, made):
    assert_made(google, made)
    assert (began(google), sent(google)) == (1, CHUNKS)
    assert google.site.compute.disk("my-image").stat().st_size == 5 << 20


def test_session_is_private_and_shown_nowhere(google, made):
    made.die("PUT", 2)
    assert stat.S_IMODE(made.session_file.stat().st_mode) == 0o600
    uri = json.loads(made.session_file.read_text())["uri"]
    assert uri.startswith("http")
    assert uri.partition("upload_id=")[2] not in repr(made.record.lines) + repr(made.journal.entries())


def test_upload_that_died_goes_on_where_the_service_says(google, made):
    made.die("PUT", 3)
    before = sent(google)
    assert_made(google, made)
    assert began(google) == 1
    assert sent(google) - before == 1 + CHUNKS - 4  # the question, and what was missing
    assert f"Going on with the archive of an earlier try, at byte {4 << 20}." in made.record.lines


def test_part_of_a_chunk_that_the_service_has_is_not_sent_again(google, made):
    google.faults.replace([{"action": "objects.upload", "nth": 3, "cut_request_bytes": 700_000}])
    assert_made(google, made)
    assert began(google) == 1
    assert sent(google) == CHUNKS + 1  # with the question


@pytest.mark.parametrize(
    "fault",
    [
        {"first": 3, "code": "backendError"},
        {"first": 3, "code": "tooManyRequests"},
        {"first": 3, "code": "rateLimitExceeded"},
        {"nth": 2, "lose_answer": True},
        {"nth": CHUNKS, "lose_answer": True},
        {"nth": CHUNKS, "cut_request_bytes": 10},
        {"nth": 2, "cut_answer": 0.5},
        {"nth": 4, "status": 408},
    ],
    ids=str,
)
def test_upload_gets_over_what_goes_wrong_on_the_way(google, made, fault):
    google.faults.replace([{"action": "objects.upload", **fault}])
    assert_made(google, made)
    assert began(google) == 1


@pytest.mark.parametrize("nth", [2, CHUNKS])
def test_damage_on_the_way_is_found_before_there_is_an_image(google, made, nth):
    google.faults.replace([{"action": "objects.upload", "nth": nth, "corrupt": True}])
    with pytest.raises(PlatformReplyError, match="CRC32C"):
        made.run()
    assert (list(google.site.compute.images), google.objects(), google.site.storage.sessions) == ([], [], [])


def test_token_that_expires_is_renewed_in_the_middle(google, made):
    def expire(event):
        if isinstance(event, ObjectCreated):
            google.site.identity.expire()

    assert made.run(expire).id == "my-image"
    assert len(google.calls("token")) == 3


def test_session_that_the_service_has_no_more_is_begun_anew(google, made):
    made.die("PUT", 2)
    google.site.storage.forget()
    assert_made(google, made)
    assert began(google) == 2
    assert any(line.startswith(GONE) for line in made.record.lines)


def test_other_image_under_the_same_name_is_begun_anew(google, made):
    made.die("PUT", 2)
    made.change_image()
    assert_made(google, made)
    assert began(google) == 2
    assert any(line.startswith(GONE) for line in made.record.lines)


def test_other_image_whose_difference_was_not_noted_is_begun_anew(google, made):
    made.die("PUT", 0)  # the service has the first chunk, and that is not written down
    made.change_image()
    assert_made(google, made)
    assert began(google) == 2


def test_image_that_an_earlier_try_began_is_waited_for(google, made):
    made.die("POST image")
    assert_made(google, made)
    assert (began(google), len(google.calls("images.insert"))) == (1, 1)
    assert "Image my-image is there already, and of the same disk." in made.record.lines


def test_archive_that_an_earlier_try_completed_is_used(google, made):
    made.die("PUT", CHUNKS - 1)
    before = sent(google)
    assert_made(google, made)
    assert (began(google), sent(google) - before) == (1, 1)  # the question
    assert "The archive of an earlier try is complete." in made.record.lines


def test_archive_of_an_earlier_try_that_was_replaced_is_made_anew(google, made):
    made.die("PUT", CHUNKS - 1)
    (name,) = google.objects()
    google.replace_object(name, b"something else")
    assert_made(google, made)
    assert began(google) == 2


def test_archive_of_an_earlier_try_that_was_removed_is_made_anew(google, made):
    google.faults.replace([{"action": "images.insert", "code": "forbidden"}])
    session = []
    with pytest.raises(DeniedError):
        made.run(lambda event: session or session.append(made.session_file.exists() and made.session_file.read_bytes()))
    assert google.objects() == []
    google.faults.replace([])
    assert_made(google, made)


def test_session_that_can_t_be_read_is_begun_anew(google, made):
    made.die("PUT", 2)
    made.session_file.write_text("{")
    assert made.run().id == "my-image"
    assert began(google) == 2


def test_stopped_upload_gives_up_its_session(google, made):
    cancel = Cancel()
    google.faults.replace([{"action": "objects.upload", "nth": 3, "delay_seconds": 0.2}])

    def stop(_event):
        if sent(google) > 1:
            cancel.request(signal.SIGTERM)

    with pytest.raises(StoppedError):
        made.run(stop, cancel)
    assert (google.objects(), google.site.storage.sessions, made.session_file.exists()) == ([], [], False)


def test_session_is_kept_for_another_try_where_that_may_help(google, made):
    google.faults.replace([{"action": "objects.upload", "after": 2, "code": "backendError"}])
    with pytest.raises(TransientError):
        made.run()
    assert len(google.site.storage.sessions) == 1
    google.faults.replace([])
    assert_made(google, made)
    assert began(google) == 1


@pytest.mark.parametrize(
    ("rights", "error"), [({"bucket": (), "project": ()}, DeniedError)], ids=["no right on the bucket"]
)
def test_upload_that_may_not_be_fails_at_once(google, made, rights, error):
    google.site.identity.rights = {**google.site.identity.rights, "bucket": rights["bucket"]}
    with pytest.raises(error, match=r"storage\.objects\.create"):
        made.run()
    assert sent(google) == 0


def test_key_that_is_none_of_the_account_s_is_refused(google, uploads):
    made = uploads(credentials=google.key.replace("uploader@", "other@"))
    with pytest.raises(CredentialsError, match="account not found"):
        made.run()


def test_missing_bucket_is_said(google, uploads):
    made = uploads(bucket="no-such-bucket")
    with pytest.raises(Exception, match="bucket no-such-bucket: The specified bucket does not exist"):
        made.run()
