"""Who has a job: claims, beats and ends, over restarts of the server at each step."""

import contextlib
import json
import threading
import time

import hypothesis
import pytest
from fakes.cluster_site import LEASE_SECONDS, PASSWORD, PUBLISH_SECONDS, SHA256, TAKEOVERS, claim_id
from hypothesis import stateful
from hypothesis import strategies as st

from clouduploader.cluster.dispatch import intake as cluster_intake
from clouduploader.cluster.dispatch import leases as cluster_leases
from clouduploader.cluster.dispatch.leases import Claim, StaleError
from clouduploader.errors import DataError, JobStateError, NoSuchJobError, TransientError
from clouduploader.model.job import JobState
from clouduploader.store import journal
from clouduploader.store.journal import writer
from clouduploader.store.spool import leases as lease_files
from clouduploader.store.spool.leases import LeaseState

ENTRY = b'{"what": "begin", "time": "2026-11-29T12:00:00.000Z", "job": "7"}\n'
MADE = b'{"what": "made", "time": "2026-11-29T12:00:01.000Z", "kind": "image", "id": "i-1", "region": "here"}\n'
SUCCEEDED = (
    b'{"what": "end", "time": "2026-11-29T12:00:02.000Z", "outcome": "succeeded", "result": "i-1",'
    b' "objects": [{"kind": "image", "id": "i-1", "region": "here"}], "shortfalls": []}\n'
)
FAILED = b'{"what": "end", "time": "2026-11-29T12:00:02.000Z", "outcome": "failed", "result": null}\n'


def write_log(site, data, offset=0, *, attempt=1, number=1):
    return site.leases.append_log("7", attempt, claim_id(number), offset, data)


def write_journal(site, data, *, attempt=1, number=1):
    with site.leases.working("7", attempt, claim_id(number)) as intake:
        return intake.journal.append("journal", intake.journal.files()["journal"], data)


def test_host_gets_what_it_needs_and_the_lease_tells_no_secret(site):
    site.publish()
    answer = site.claim()
    assert answer.values == {"region": "here", "password": PASSWORD}
    assert (answer.secrets, answer.image_bytes, answer.files) == ((PASSWORD,), 8, {"journal": 0})
    assert journal.is_key(answer.key)
    assert (answer.job.user, answer.job.name) == ("tom", "7")
    assert site.state() is JobState.UPLOADING
    view = site.leases.view("7")
    assert (view.host, view.attempt, view.state, view.user) == ("h1", 1, LeaseState.CLAIMED, "tom")
    assert site.kinds() == ["started"]
    written = site.jobs.lease_path("7").read_text()
    for text in (written, repr(answer), repr(site.events), repr(view), site.jobs.log_path("7").read_text()):
        assert PASSWORD not in text
        assert claim_id(1) not in text


@pytest.mark.parametrize("is_restarted", [False, True])
def test_lost_answer_is_given_again_and_no_other_host_gets_the_job(site, is_restarted):
    site.publish()
    answer = site.claim()
    if is_restarted:
        site.restart()
    again = site.claim()
    assert (again.values, again.key) == (answer.values, answer.key)
    with pytest.raises(StaleError):
        site.claim(number=2, host="h2")
    with pytest.raises(StaleError):
        site.claim(attempt=2)
    assert site.kinds() == ["started"]


def test_of_claims_at_once_one_wins(site):
    site.publish()
    won = []

    def claim(number):
        with contextlib.suppress(StaleError):
            site.claim(number=number, host=f"h{number}")
            won.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert site.leases.view("7").host == f"h{won[0]}"


@pytest.mark.parametrize("attempt", [0, 2, 10**9])
def test_attempt_that_is_not_the_newest_is_refused(site, attempt):
    site.publish()
    with pytest.raises(StaleError):
        site.claim(attempt=attempt)
    assert site.state() is JobState.SCHEDULED
    with pytest.raises(StaleError):
        site.claim("8")


def test_what_is_published_in_vain_can_be_published_anew(site):
    site.publish()
    assert site.leases.seconds_left() == PUBLISH_SECONDS
    site.clock.now += PUBLISH_SECONDS
    site.leases.expire()
    assert site.leases.view("7").state is LeaseState.FREE
    assert site.leases.publish("7", "other") == 2
    with pytest.raises(StaleError):
        site.claim(attempt=1)
    site.claim(attempt=2)
    assert site.kinds() == ["started"]


def test_message_that_could_not_be_sent_is_taken_back(site):
    site.publish()
    site.leases.withdraw("7", 1)
    assert site.leases.view("7").state is LeaseState.FREE
    with pytest.raises(StaleError):
        site.claim()
    site.leases.publish("7", "uploads")
    site.claim(attempt=2)
    site.leases.withdraw("7", 2)
    site.leases.withdraw("8", 1)
    assert site.leases.view("7").state is LeaseState.CLAIMED


def test_job_that_a_host_has_is_not_published(site):
    site.publish()
    site.claim()
    with pytest.raises(JobStateError):
        site.leases.publish("7", "uploads")
    with pytest.raises(NoSuchJobError):
        site.leases.publish("8", "uploads")


def test_host_that_beats_keeps_its_job_and_one_that_does_not_loses_it(site):
    site.publish()
    site.claim()
    for _ in range(5):
        site.clock.now += LEASE_SECONDS - 1
        site.leases.expire()
        assert site.beat() is False
    site.clock.now += LEASE_SECONDS
    site.leases.expire()
    assert site.state() is JobState.SCHEDULED
    for call in (site.beat, site.done, lambda: write_log(site, b"x"), lambda: write_journal(site, ENTRY), site.claim):
        with pytest.raises(StaleError):
            call()
    assert site.leases.publish("7", "uploads") == 2
    site.claim(attempt=2, number=2, host="h2")
    for call in (site.beat, site.done, lambda: write_log(site, b"x"), lambda: write_journal(site, ENTRY)):
        with pytest.raises(StaleError):
            call()
    with pytest.raises(StaleError):
        site.beat(attempt=2, number=1)
    assert site.beat(attempt=2, number=2) is False
    assert site.kinds() == ["started", "lost", "started"]
    assert site.events[1].text == "the host h1 was lost with attempt 1"


def test_beat_that_comes_while_its_lease_ends_is_refused(site):
    site.publish()
    site.claim()
    site.clock.now += LEASE_SECONDS
    with site.jobs.lock("7"):
        thread = threading.Thread(target=site.leases.expire)
        thread.start()
        while not site.leases._leases["7"].is_lost:
            time.sleep(0.01)
        for call in (site.beat, lambda: site.leases.check("7", 1, claim_id(1))):
            with pytest.raises(StaleError):
                call()
    thread.join()
    assert site.leases.view("7").state is LeaseState.FREE
    site.leases.publish("7", "uploads")
    site.claim(attempt=2)
    assert site.beat(attempt=2) is False


@pytest.mark.parametrize("hours", [-5000, 5000])
def test_clock_that_is_set_changes_nothing(site, monkeypatch, hours):
    site.publish()
    site.claim()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
    site.leases.expire()
    assert site.beat() is False
    site.restart()
    site.leases.expire()
    assert site.beat() is False
    assert site.leases.seconds_left() == LEASE_SECONDS


def test_each_step_goes_on_at_the_next_server(site):
    site.publish()
    site.restart()
    site.claim()
    site.restart()
    assert site.beat() is False
    assert write_log(site, b"one\n") == 4
    assert write_journal(site, ENTRY) == len(ENTRY)
    site.restart()
    assert write_log(site, b"one\ntwo\n") == 8
    with site.leases.working("7", 1, claim_id(1)) as intake:
        assert intake.journal.files()["journal"] == len(ENTRY)
    site.restart()
    site.done()
    assert (site.state(), site.jobs.read("7")[0].details) == (JobState.SUCCEEDED, "image-1")
    assert site.jobs.done_log_path("7").read_bytes() == b"one\ntwo\n"
    assert site.left() == []
    site.restart()
    with pytest.raises(StaleError):
        site.done()


def test_new_server_gives_each_lease_its_time_once_more(site):
    site.publish()
    site.publish("8")
    site.claim()
    site.clock.now += LEASE_SECONDS - 1
    site.restart()
    site.leases.expire()
    assert {view.job: view.state for view in site.leases.held()} == {"7": "claimed", "8": "published"}
    site.clock.now += PUBLISH_SECONDS
    site.leases.expire()
    assert {view.job: view.state for view in site.leases.held()} == {"7": "claimed", "8": "free"}
    site.clock.now += LEASE_SECONDS
    site.leases.expire()
    assert site.leases.view("7").takeovers == 1


def test_log_takes_what_is_new_of_it_and_nothing_behind_a_gap(site):
    site.publish(log=b"before\n")
    site.claim()
    assert write_log(site, b"one\n") == 4
    assert write_log(site, b"one\ntwo\n") == 8
    assert write_log(site, b"\ntwo\n", 3) == 8
    assert write_log(site, b"four\n", 9) == 8
    assert write_log(site, b"", 2**60) == 8
    assert write_log(site, b"o") == 1  # what the host knows of, and not what another one may have written
    assert site.jobs.log_path("7").read_bytes() == b"before\none\ntwo\n"


def test_log_of_a_host_is_bounded_and_the_upload_goes_on(site, monkeypatch):
    monkeypatch.setattr(cluster_intake, "MAX_LOG_BYTES", 10)
    site.publish(log=b"before\n")
    site.claim()
    assert write_log(site, b"one\ntwo\n") == 8
    assert write_log(site, b"three\n", 8) == 14
    assert site.jobs.log_path("7").read_bytes() == b"before\none"


def test_journal_of_an_upload_that_left_nothing_is_tidied_at_its_end(site):
    site.publish()
    key = site.claim().key
    home = site.config.state.value / key
    with site.leases.working("7", 1, claim_id(1)) as intake:
        intake.journal.append("platform/confirmed", 0, b"abc")
    assert json.loads((home / "targetdata").read_bytes())["region"] == "here"
    write_journal(site, ENTRY + FAILED.replace(b"failed", b"succeeded"))
    site.done()
    assert [path.name for path in home.iterdir()] == ["journal"]


def test_log_and_journal_are_locked_as_long_as_a_host_has_the_job(site):
    site.publish()
    key = site.claim().key
    write_log(site, f"Journal: {key}\n".encode())
    write_journal(site, ENTRY + MADE)
    assert journal.read(site.config.state.value, key).is_live
    other = site.jobs.open_log("7")
    other.close()
    assert not site.jobs.log_path("7").read_bytes()  # another one took its place
    site.clock.now += LEASE_SECONDS
    site.leases.expire()
    assert not journal.read(site.config.state.value, key).is_live


def test_lines_of_a_lost_host_are_marked_and_limited(site):
    site.publish()
    site.claim()
    write_log(site, b"one\n")
    site.clock.now += LEASE_SECONDS
    site.leases.expire()
    site.leases.publish("7", "uploads")
    site.claim(attempt=2, number=2, host="h2")
    assert write_log(site, b"new\n", attempt=2, number=2) == 4
    for data in (b"two\nthree", b"x" * 10**6, b"four\n"):
        with pytest.raises(StaleError):
            write_log(site, data, 4)
    with pytest.raises(StaleError):
        write_log(site, b"forged\n", number=3)
    assert write_log(site, b"end\n", 4, attempt=2, number=2) == 8
    log = site.jobs.log_path("7").read_bytes()
    label = b"[attempt 1, h1, after its lease] "
    first, loss, rest = log.split(b"\n", 2)
    assert (first, loss[9:]) == (b"one", b"The host h1 was lost with attempt 1; another one goes on.")
    assert rest.startswith(b"new\n" + label + b"two\n" + label + b"three\n" + label + b"xxx")
    assert log.endswith(b"x\nend\n")
    assert len(log) < 66_000
    assert b"forged" not in log
    assert b"four" not in log
    site.restart()
    assert write_log(site, b"end\nmore\n", 4, attempt=2, number=2) == 13
    assert site.jobs.log_path("7").read_bytes() == log + b"more\n"


def test_empty_lines_of_a_lost_host_count_with_their_labels(site):
    site.publish()
    site.claim()
    site.clock.now += LEASE_SECONDS
    site.leases.expire()
    for _ in range(3):
        with pytest.raises(StaleError):
            write_log(site, b"\n" * 60_000)
    log = site.jobs.log_path("7").read_bytes()
    assert 65_000 < len(log) < 66_000
    assert log.endswith(b"\n")


@pytest.mark.parametrize(
    ("code", "state", "details"),
    [(0, JobState.SUCCEEDED, "image-1"), (65, JobState.FAILED, "image-1"), (-6, JobState.FAILED, "image-1")],
)
def test_end_is_recorded_as_by_a_worker(site, code, state, details):
    site.publish()
    site.claim()
    site.clock.now += 12
    site.done(code)
    job, is_archived = site.jobs.read("7")
    assert (job.state, job.details, is_archived) == (state, details, True)
    assert site.leases.held() == []
    assert site.left() == ([".7.cleanup"] if code < 0 else [])
    end = site.events[-1].end
    assert (end.exit_code, end.seconds) == (134 if code < 0 else code, 12)
    with pytest.raises(StaleError):
        site.done(code)


def test_upload_whose_uploader_sigkill_has_ended_is_gone_on_with(site):
    site.publish()
    site.claim()
    site.done(-9)
    lease = site.leases.view("7")
    assert (lease.state, lease.takeovers, site.state()) == (LeaseState.FREE, 1, JobState.SCHEDULED)
    assert ".7.cleanup" not in site.left()
    log = site.jobs.log_path("7").read_text()
    assert log.endswith("The uploader of the host h1 was killed in attempt 1; another one goes on.\n")
    assert site.leases.publish("7", "uploads") == 2
    site.claim(attempt=2, number=2)
    site.done(attempt=2, number=2)
    assert site.state() is JobState.SUCCEEDED
    assert site.kinds() == ["started", "lost", "started", "succeeded"]


def test_uploader_that_was_killed_with_its_job_is_not_lost(site):
    site.publish()
    site.claim()
    with site.jobs.lock("7") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    site.leases.look(["7"])
    site.done(-9)
    assert site.kinds() == ["started", "killed"]
    assert site.left() == [".7.cleanup"]


def test_job_that_may_work_later_waits_and_is_tried_again(site):
    site.publish()
    site.claim()
    site.done(75, "throttled")
    job, _ = site.jobs.read("7")
    assert (job.state, job.try_) == (JobState.WAITING, 2)
    assert site.leases.view("7").state is LeaseState.FREE
    site.restart()
    with pytest.raises(StaleError):
        site.done(75)
    assert site.leases.publish("7", "uploads") == 2
    assert site.state() is JobState.SCHEDULED
    answer = site.claim(attempt=2, number=2)
    assert answer.job.try_ == 2
    site.done(attempt=2, number=2)
    assert site.state() is JobState.SUCCEEDED
    assert site.kinds() == ["started", "waiting", "started", "succeeded"]


def test_job_that_was_lost_too_often_fails_and_a_new_try_counts_anew(site):
    site.publish()
    for attempt in range(1, TAKEOVERS + 2):
        site.claim(attempt=attempt, number=attempt, host=f"h{attempt}")
        site.clock.now += LEASE_SECONDS
        site.leases.expire()
        if attempt <= TAKEOVERS:
            site.leases.publish("7", "uploads")
    job, _ = site.jobs.read("7")
    assert (job.state, job.details) == (JobState.FAILED, "3 hosts were lost with it, the last one was h3")
    assert site.left() == [".7.cleanup"]
    assert site.leases.held() == []
    site.publish("8")
    site.claim("8")
    site.clock.now += LEASE_SECONDS
    site.leases.expire()
    site.leases.publish("8", "uploads")
    site.claim("8", attempt=2)
    site.leases.done("8", 2, claim_id(1), 75, None)
    site.leases.publish("8", "uploads")
    assert site.leases.view("8").takeovers == 0


def test_kill_reaches_a_waiting_beat_at_once(site):
    site.publish()
    site.claim()
    woken = []
    with site.leases.beating("7", 1, claim_id(1), lambda: woken.append(1)) as beating:
        assert beating.is_stopping() is False
        site.leases.look({"7", "8", ".7.lease", "x"})
        assert not woken
        site.kill()
        site.leases.look({"7"})
        assert woken
        assert beating.is_stopping() is True
    assert site.beat() is True
    assert write_log(site, b"Removed.\n") == 9
    site.restart()
    assert site.beat() is True
    assert write_log(site, b"Removed.\nend\n") == 13
    assert site.jobs.done_log_path("7").read_bytes() == b"Removed.\nend\n"
    site.done(143, "killed")
    assert site.left() == []
    assert site.events[-1].kind == "killed"
    assert site.jobs.read("7")[0].details == "killed"


def test_answer_to_a_beat_renews_nothing(site):
    """A host that is lost while its beat waits does not get the answer."""
    site.publish()
    site.claim()
    with site.leases.beating("7", 1, claim_id(1), lambda: None) as beating:
        site.clock.now += LEASE_SECONDS - 1
        assert beating.is_stopping() is False
    site.clock.now += 1
    site.leases.expire()
    assert site.kinds() == ["started", "lost"]


def test_beat_is_answered_when_its_lease_ends(site):
    site.publish()
    site.claim()
    woken = []
    with site.leases.beating("7", 1, claim_id(1), lambda: woken.append(1)) as beating:
        site.done()
        assert woken
        with pytest.raises(StaleError):
            beating.is_stopping()


@pytest.mark.parametrize("is_seen", [True, False])
def test_killed_job_whose_host_is_lost_or_that_left_something_is_cleaned_up(site, is_seen):
    site.publish()
    site.claim()
    site.kill()
    if is_seen:
        site.leases.look(None)
    site.clock.now += LEASE_SECONDS
    site.leases.expire()
    assert site.left() == [".7.cleanup"]
    assert site.kinds() == ["started", "killed"]
    assert site.leases.held() == []


@pytest.mark.parametrize("code", [143, 75])
def test_killed_job_that_left_something_by_its_journal_is_cleaned_up(site, code):
    site.publish()
    key = site.claim().key
    write_log(site, f"Journal: {key}\n".encode())
    write_journal(site, ENTRY + MADE)
    site.kill()
    write_journal(site, FAILED)
    site.done(code, None)
    assert site.left() == [".7.cleanup"]


@pytest.mark.parametrize("how", ["free", "published", "claim fails", "released"])
def test_what_a_lost_host_left_is_known_once_the_lease_of_its_killed_job_is_gone(site, monkeypatch, how):
    site.publish()
    write_log(site, f"Journal: {site.claim().key}\n".encode())
    write_journal(site, ENTRY + MADE)
    site.clock.now += LEASE_SECONDS
    site.leases.expire()
    if how != "free":
        site.leases.publish("7", "uploads")
    if how == "released":
        site.claim(attempt=2)
    site.kill()
    monkeypatch.setattr(lease_files, "remove", lambda *_: None)  # as if the server were killed in front of it
    if how == "free":
        site.leases.look({"7"})
    elif how == "published":
        site.clock.now += PUBLISH_SECONDS
        site.leases.expire()
    elif how == "claim fails":
        with pytest.raises(StaleError):
            site.claim(attempt=2)
    else:
        site.leases.release("7", 2, claim_id(1), "")
        assert site.events[-1].end  # which has the dispatcher clean up
    assert site.leases.held() == []
    assert site.left() == [".7.cleanup", ".7.lease"]


@pytest.mark.parametrize("how", ["lost", "uploader killed"])
def test_upload_that_was_over_when_its_host_was_lost_has_succeeded(site, how):
    site.publish()
    write_log(site, f"Journal: {site.claim().key}\n".encode())
    write_journal(site, ENTRY + MADE + SUCCEEDED)
    if how == "lost":
        site.clock.now += LEASE_SECONDS
        site.leases.expire()
    else:
        site.done(-9, None)
    job, _ = site.jobs.read("7")
    assert (job.state, job.details) == (JobState.SUCCEEDED, "i-1")
    assert site.left() == []
    assert site.kinds() == ["started", "succeeded"]


def test_success_of_another_upload_counts_for_no_lost_host(site):
    """The journal has it from an earlier job of that name; this one has not begun."""
    site.publish()
    site.claim()
    write_journal(site, ENTRY + MADE + SUCCEEDED)
    site.clock.now += LEASE_SECONDS
    site.leases.expire()
    assert site.state() is JobState.SCHEDULED


def test_job_that_is_killed_before_a_host_has_it_leaves_no_lease(site):
    site.publish()
    site.publish("8")
    site.kill()
    site.kill("8")
    with pytest.raises(StaleError):
        site.claim()
    site.leases.look({"8"})
    assert site.left() == []
    site.publish("9")
    site.kill("9")
    site.restart()
    assert site.left() == []


@pytest.mark.parametrize("is_published", [True, False])
def test_job_that_is_killed_after_a_host_was_lost_while_no_server_runs_is_cleaned_up(site, is_published):
    site.publish()
    write_log(site, f"Journal: {site.claim().key}\n".encode())
    write_journal(site, ENTRY + MADE)
    site.clock.now += LEASE_SECONDS
    site.leases.expire()
    if is_published:
        site.leases.publish("7", "uploads")
    site.kill()
    site.restart()
    assert site.left() == [".7.cleanup"]


def test_job_that_was_killed_while_a_host_claimed_it_is_stopped(site):
    site.publish()
    site.when_told = lambda _event: site.kill()
    site.claim()
    assert site.beat() is True


def test_job_whose_target_data_are_wrong_fails_as_by_its_uploader(site):
    site.publish(data={"region": 7, "password": PASSWORD})
    with pytest.raises(StaleError, match="its log tells why") as caught:
        site.claim()
    job, _ = site.jobs.read("7")
    assert (job.state, job.details) == (
        JobState.FAILED,
        "the target data are wrong: region is the number 7, but must be a string.",
    )
    log = site.jobs.done_log_path("7").read_text()
    assert "user tom, target made-up" in log
    assert "Error: the target data are wrong" in log
    assert PASSWORD not in log + str(caught.value) + repr(site.events)
    assert site.left() == []
    assert site.kinds() == ["failed"]


def test_job_without_what_every_upload_needs_fails(site):
    site.publish(user=None)
    with pytest.raises(StaleError):
        site.claim()
    assert site.jobs.read("7")[0].details == "the job has no user"
    assert site.left() == []


def test_same_upload_by_another_process_is_waited_for(site, monkeypatch):
    monkeypatch.setattr(writer, "LOCK_SECONDS", 0.05)
    site.publish()
    key = site.claim().key
    site.leases.release("7", 1, claim_id(1), "no room")
    site.leases.publish("7", "uploads")
    with journal.open_journal(site.config.state.value, key), pytest.raises(StaleError):
        site.claim(attempt=2)
    job, _ = site.jobs.read("7")
    assert job.state is JobState.WAITING
    assert "the same upload is under way already" in job.details


def test_host_gives_a_job_back_that_it_has_not_begun(site):
    site.publish()
    site.claim()
    site.leases.release("7", 1, claim_id(1), "the disk is full\nreally" + "!" * 10**6)
    assert site.state() is JobState.SCHEDULED
    assert site.events[-1].text.startswith("the host h1 gave it back: the disk is full\\nreally!")
    assert site.jobs.read("7")[0].details == site.events[-1].text
    assert len(site.events[-1].text) < 600
    assert site.leases.seconds_left() == cluster_leases.RELEASE_SECONDS
    assert site.leases.view("7").takeovers == 0
    with pytest.raises(StaleError):
        site.leases.release("7", 1, claim_id(1), "")
    site.leases.publish("7", "uploads")
    site.claim(attempt=2)
    site.kill()
    site.leases.release("7", 2, claim_id(1), "")
    assert site.left() == []


def test_reason_of_a_host_may_be_anything(site):
    site.publish()
    site.claim()
    site.leases.release("7", 1, claim_id(1), "<&\x00\x1b\ud800\ufffe")
    assert site.jobs.read("7")[0].details.startswith("the host h1 gave it back: <&")


@pytest.mark.parametrize("protocol", [0, 2, 99])
def test_host_of_another_protocol_gets_no_job_and_the_next_can_have_it(site, protocol):
    site.publish()
    with pytest.raises(StaleError, match=f"does not know version {protocol}"):
        site.claim(protocol=protocol)
    assert site.leases.view("7").state is LeaseState.FREE
    site.leases.publish("7", "uploads")
    site.claim(attempt=2)


def test_answer_that_is_given_again_depends_on_nothing_new(site):
    site.publish()
    site.claim()
    site.claim(protocol=99)
    site.leases.claim("7", Claim(attempt=1, id=claim_id(1), host="h1", protocol=1), is_draining=True)
    assert site.beat() is False


def test_request_without_a_lease_does_not_wait_for_that_of_the_host_that_has_it(site):
    site.publish()
    site.claim()
    refused = []

    def ask():
        with pytest.raises(StaleError):
            write_log(site, b"x", number=2)
        refused.append(1)

    thread = threading.Thread(target=ask)
    with site.leases.working("7", 1, claim_id(1)):
        thread.start()
        thread.join(10)
        assert refused
    thread.join()


@pytest.mark.parametrize("host", ["", "a b", "../x", "a\n", "ä"])
def test_host_without_a_name_gets_no_job(site, host):
    site.publish()
    with pytest.raises(DataError):
        site.claim(host=host)


def test_progress_is_in_the_record(site):
    site.publish()
    site.claim()
    assert site.leases.is_news("7", 42)
    site.leases.note_progress("7", 1, claim_id(1), 42)
    assert site.jobs.read("7")[0].progress == 42
    assert not site.leases.is_news("7", 42)
    before = site.jobs.job_path("7").stat().st_ino
    site.leases.note_progress("7", 1, claim_id(1), 42)
    assert site.jobs.job_path("7").stat().st_ino == before
    with pytest.raises(StaleError):
        site.leases.note_progress("7", 1, claim_id(2), 43)


def test_sha256_counts_only_for_the_file_that_it_was_made_of(site):
    site.make()
    path = site.jobs.file_path("7")
    site.leases.publish("7", "uploads")
    assert site.leases.sha256("7") is None
    site.publish_known("0" * 64)
    assert site.claim(attempt=2).sha256 == "0" * 64
    site.restart()
    assert site.leases.sha256("7") == "0" * 64
    path.write_bytes(b"another")
    assert site.leases.sha256("7") is None
    path.unlink()
    assert site.leases.sha256("7") is None
    assert site.leases.sha256("8") is None


@pytest.mark.parametrize("is_again", [True, False])
def test_job_whose_image_has_changed_is_published_anew(site, is_again):
    site.publish()
    if is_again:
        site.claim()
    site.jobs.file_path("7").write_bytes(b"another")
    with pytest.raises(StaleError, match="has changed"):
        site.claim()
    assert (site.state(), site.leases.view("7").state) == (JobState.SCHEDULED, LeaseState.FREE)
    assert site.leases.view("7").takeovers == 0
    site.publish_known(SHA256)
    assert site.claim(attempt=2).sha256 == SHA256


def test_server_that_ends_refuses_no_host(site):
    site.publish()
    site.claim()
    woken = []
    with site.leases.beating("7", 1, claim_id(1), lambda: woken.append(1)) as beating:
        site.leases.close()
        assert woken
        assert beating.is_stopping() is False
        for call in (lambda: write_log(site, b"x"), site.done, lambda: write_journal(site, ENTRY)):
            with pytest.raises(TransientError):
                call()
    site.restart()
    site.done()
    assert site.state() is JobState.SUCCEEDED


def test_host_is_not_refused_for_what_the_server_cannot_write(site):
    site.publish()
    site.claim()
    site.jobs.lease_path("7").unlink()
    site.jobs.lease_path("7").mkdir()
    for call in (site.done, lambda: site.leases.release("7", 1, claim_id(1), "")):
        with pytest.raises(TransientError):
            call()
    site.jobs.lease_path("7").rmdir()
    site.done()
    assert site.leases.held() == []


@pytest.mark.parametrize("way", ["done", "lost"])
@pytest.mark.parametrize("is_there", [True, False])
def test_lease_of_a_job_whose_record_is_damaged_or_gone_ends(site, way, is_there):
    site.publish()
    site.claim()
    site.jobs.job_path("7").write_text("<") if is_there else site.jobs.job_path("7").unlink()
    if way == "done":
        site.done()
    else:
        site.clock.now += LEASE_SECONDS
        site.leases.expire()
    assert site.leases.held() == []
    assert not site.jobs.lease_path("7").exists()
    assert site.kinds() == ["started", "trouble"]


def test_damaged_lease_lets_the_job_begin_again(site):
    site.publish()
    site.claim()
    site.jobs.lease_path("7").write_text("{")
    site.restart()
    with pytest.raises(StaleError):
        site.beat()
    site.clock.now += LEASE_SECONDS - 1  # till then its host may go on without an answer
    site.leases.expire()
    assert site.leases.view("7").state is not LeaseState.FREE
    site.clock.now += 1
    site.leases.expire()
    assert site.state() is JobState.SCHEDULED
    site.publish_known(SHA256)
    site.claim(number=2)
    with pytest.raises(StaleError):
        site.beat(number=1)
    assert "trouble" in site.kinds()


def test_lease_without_a_job_is_removed(site):
    site.publish()
    site.jobs.job_path("7").unlink()
    site.restart()
    assert not site.jobs.lease_path("7").exists()


def test_host_whose_journal_another_process_took_has_lost_the_job(site, monkeypatch):
    monkeypatch.setattr(writer, "LOCK_SECONDS", 0.05)
    site.publish()
    key = site.claim().key
    for lease in site.leases._leases.values():
        lease.intake.close()
    with journal.open_journal(site.config.state.value, key):
        site.restart()
    for call in (lambda: write_log(site, b"x"), site.beat, site.claim):
        with pytest.raises(StaleError):
            call()
    site.clock.now += LEASE_SECONDS - 1  # till then its host may go on without an answer
    site.leases.expire()
    assert site.leases.view("7").state is LeaseState.CLAIMED
    site.clock.now += 1
    site.leases.expire()
    assert site.leases.view("7").state is LeaseState.FREE
    assert site.state() is JobState.SCHEDULED


@pytest.mark.parametrize("is_free", [True, False])
def test_job_that_cannot_be_loaded_now_keeps_no_server_from_starting(site, is_free):
    site.publish()
    site.publish("8")
    if is_free:
        site.leases.withdraw("7", 1)
    site._make_job(site.jobs, "7", state=JobState.UPLOADING, user="tom", target="made-up")
    site.jobs._lock_timeout_seconds = 0.0
    with site.jobs.lock("7"):  # by `kill`, which takes its time
        site.restart()
        assert site.kinds() == (["trouble"] if is_free else [])
        assert site.leases.view("8").state is LeaseState.PUBLISHED
    site.clock.now += PUBLISH_SECONDS
    site.leases.expire()
    assert (site.state(), site.leases.view("7").state) == (JobState.SCHEDULED, LeaseState.FREE)


@pytest.mark.parametrize("step", ["released", "waiting", "failing"])
def test_server_that_died_between_two_files_leaves_nothing_that_hangs(site, step):
    site.publish()
    if step == "failing":  # the record says that a host has it, the lease that none has
        job, _ = site.jobs.read("7")
        site._make_job(site.jobs, "7", state=JobState.UPLOADING, user=job.user, target="made-up")
    else:
        site.claim()
        state = JobState.SCHEDULED if step == "released" else JobState.WAITING
        site._make_job(site.jobs, "7", state=state, target="made-up", try_=None if step == "released" else 2)
    site.restart()
    site.clock.now += LEASE_SECONDS
    site.leases.expire()
    assert site.leases.view("7").state is LeaseState.FREE
    assert site.leases.view("7").takeovers == 0
    assert site.leases.publish("7", "uploads") == 2


class Hosts(stateful.RuleBasedStateMachine):
    """Hosts that claim, beat, end, are lost and come back, servers that restart, and a judge who knows what may be."""

    site = None  # set by the test

    def __init__(self):
        super().__init__()
        for path in (self.site.jobs.lease_path("7"), self.site.jobs.done_path("7"), self.site.jobs.cleanup_path("7")):
            path.unlink(missing_ok=True)
        self.site.restart()
        self.site.make("7")
        self.attempt, self.owner, self.ends = 0, None, 0

    @stateful.rule()
    def publish(self):
        try:
            attempt = self.site.leases.publish("7", "uploads")
        except (JobStateError, NoSuchJobError):
            assert self.owner or self.ends
        else:
            assert attempt == self.attempt + 1
            assert not self.owner
            self.attempt = attempt

    @stateful.rule(attempt=st.integers(0, 4), number=st.integers(1, 3))
    def claim(self, attempt, number):
        try:
            self.site.claim(attempt=attempt, number=number)
        except StaleError:
            assert self.owner != (attempt, number) or self.ends
        else:
            assert attempt == self.attempt
            assert self.owner in (None, (attempt, number))
            self.owner = (attempt, number)

    @stateful.rule(attempt=st.integers(0, 4), number=st.integers(1, 3))
    def beat(self, attempt, number):
        try:
            self.site.beat(attempt=attempt, number=number)
        except StaleError:
            assert self.owner != (attempt, number)
        else:
            assert self.owner == (attempt, number)

    @stateful.rule(attempt=st.integers(0, 4), number=st.integers(1, 3), code=st.sampled_from([0, 65, 75]))
    def done(self, attempt, number, code):
        try:
            self.site.done(code, attempt=attempt, number=number)
        except StaleError:
            assert self.owner != (attempt, number)
        else:
            assert self.owner == (attempt, number)
            self.owner = None
            self.ends += self.site.state().is_final

    @stateful.rule(seconds=st.sampled_from([1, PUBLISH_SECONDS, LEASE_SECONDS]))
    def wait(self, seconds):
        self.site.clock.now += seconds
        self.site.leases.expire()
        view = self.site.leases.view("7")
        if seconds == LEASE_SECONDS or view is None or view.state is not LeaseState.CLAIMED:
            self.owner = None
            self.ends = int(self.site.state().is_final)

    @stateful.rule()
    def restart(self):
        self.site.restart()

    @stateful.rule()
    def kill(self):
        with contextlib.suppress(NoSuchJobError):
            self.site.kill()
            self.ends += 1
        self.site.leases.look({"7"})

    @stateful.invariant()
    def holds(self):
        assert self.ends <= 1
        view = self.site.leases.view("7")
        assert (view is not None and view.state is LeaseState.CLAIMED) == (self.owner is not None)
        on_disk = lease_files.read(self.site.jobs, "7")
        assert (on_disk and on_disk.attempt) == (view and view.attempt)
        if self.ends:
            assert self.site.state().is_final
        else:
            assert (self.site.state() is JobState.UPLOADING) == (self.owner is not None)


def test_no_order_of_events_gives_a_job_to_two_hosts(site):
    machine = type("Machine", (Hosts,), {"site": site})
    limits = hypothesis.settings(stateful_step_count=30)
    stateful.run_state_machine_as_test(machine, settings=limits)
