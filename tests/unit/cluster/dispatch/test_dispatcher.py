"""What is published when, over all that a host, a broker, a user and a crash can do meanwhile."""

import hashlib
import os
import sys

import pytest
from fakes import cluster_site, dispatching, forked, worker_bench
from fakes import object_store as fake_store
from fakes.waiting import wait_for

from clouduploader.cluster.dispatch import outbox
from clouduploader.cluster.dispatch.dispatcher import Dispatcher
from clouduploader.cluster.dispatch.leases import Leases, StaleError
from clouduploader.cluster.settings import QueueRule, StorePlace
from clouduploader.model import job_xml
from clouduploader.model.job import JobState
from clouduploader.store.spool import leases
from clouduploader.store.spool.leases import LeaseState
from clouduploader.store.spool.locked import LockedJob
from clouduploader.worker import base
from clouduploader.worker.settings import WorkerSettings

DIED = 3  # the exit code of a server that dies where a test wants
LINES = 22  # more than are executed to publish a job from the first line on that writes


@pytest.fixture
def bench(make_spool, make_job, tmp_path, install_package, monkeypatch):
    """See dispatching.Bench; its dispatcher ends with the test."""
    cluster_site.install_platform(install_package, monkeypatch)
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.05)
    home = tmp_path / "home"
    home.mkdir()
    made = dispatching.Bench(make_spool(), home, make_job)
    yield made
    made.stop()


def test_job_is_published_when_a_host_has_a_slot_and_ends_as_its_host_says(bench):
    bench.schedule("1", "2")
    bench.start()
    bench.greet(slots=1)
    assert bench.wait_for_messages(1) == [("uploads", "1", 1)]
    written = leases.read(bench.jobs, "1")
    assert (written.state, written.sha256) == ("published", hashlib.sha256(b"an image").hexdigest())
    assert bench.state("1") is JobState.SCHEDULED
    assert bench.claim("1").sha256 == written.sha256
    assert bench.state("1") is JobState.UPLOADING
    bench.done("1")
    wait_for(lambda: "succeeded" in bench.kinds())
    assert bench.jobs.read("1")[0].details == "image-1"
    assert bench.wait_for_messages(2) == [("uploads", "1", 1), ("uploads", "2", 1)]
    assert not bench.jobs.lease_path("1").exists()


def test_no_more_is_published_than_hosts_can_claim(bench):
    bench.set(rules=(QueueRule(queue="big", at_least_bytes=100),))
    bench.schedule("1", "2", "3", "4")
    bench.schedule("5", size=1000)
    bench.schedule("6", user="eve", size=1000)
    bench.start()
    bench.greet("h1", slots=1, queues=("uploads",))
    bench.greet("h2", slots=1, queues=("uploads", "big"))
    assert sorted(bench.wait_for_messages(2)) == [("big", "6", 1), ("uploads", "1", 1)]
    bench.claim("1")
    bench.claim("6", host="h2")
    bench.done("1")
    assert bench.wait_for_messages(3)[2:] == [("uploads", "2", 1)]


def test_limits_of_users_and_in_all_hold(bench):
    bench.worker_settings = WorkerSettings(max_jobs_per_user=2)
    bench.set(max_jobs=3, priorities={"eve": 5})
    bench.schedule("1", "2", "3")
    bench.schedule("4", "5", user="eve")
    bench.start()
    bench.greet(slots=10)
    assert {job for _, job, _ in bench.wait_for_messages(3)} == {"4", "5", "1"}
    bench.claim("4")
    bench.done("4", code=1)
    assert [job for _, job, _ in bench.wait_for_messages(4)[3:]] == ["2"]


def test_attempt_that_no_host_claims_is_published_anew_and_the_old_message_is_refused(bench):
    bench.set(publish_seconds=0.3)
    bench.schedule("1")
    bench.start()
    bench.greet()
    assert bench.wait_for_messages(2)[:2] == [("uploads", "1", 1), ("uploads", "1", 2)]
    with pytest.raises(StaleError, match="attempt 1 of the job 1 is not the newest"):
        bench.claim("1", attempt=1)


def test_job_that_no_host_has_is_left_to_its_lease(bench):
    """A claim that fails marks the job as uploading for an instant, and its end may not be written then."""
    bench.set(publish_seconds=0.5)
    bench.schedule("1")
    bench.start()
    bench.greet()
    bench.wait_for_messages(1)
    bench.schedule("1", state=JobState.UPLOADING)
    assert bench.wait_for_messages(2)[1] == ("uploads", "1", 2)
    assert bench.state("1") is JobState.SCHEDULED
    assert "failed" not in bench.kinds()


def test_job_of_a_lost_host_goes_to_another_one_and_its_log_says_so(bench):
    bench.set(lease_seconds=0.5)
    bench.schedule("1")
    bench.start()
    bench.greet()
    bench.wait_for_messages(1)
    bench.claim("1")
    assert bench.wait_for_messages(2)[1] == ("uploads", "1", 2)
    assert bench.texts("lost") == ["the host h1 was lost with attempt 1"]
    assert "The host h1 was lost with attempt 1; another one goes on." in bench.jobs.log_path("1").read_text()
    bench.set(lease_seconds=60)
    bench.reload()
    bench.claim("1", attempt=2, host="h2")
    bench.done("1", attempt=2)
    wait_for(lambda: "succeeded" in bench.kinds())


def test_what_a_lost_host_leaves_of_a_killed_job_is_cleaned_up(bench):
    bench.set(lease_seconds=0.5)
    bench.schedule("1")
    bench.start()
    bench.greet()
    bench.wait_for_messages(1)
    bench.claim("1")
    with bench.jobs.lock("1") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    wait_for(lambda: "cleaned" in bench.kinds())
    log = bench.jobs.done_log_path("1").read_text()
    assert "The host h1 was lost with attempt 1." in log
    assert "own cleanup --yes --completed --target=made-up --job=1" in log
    wait_for(lambda: not bench.jobs.is_cleanup_pending("1"))
    assert bench.broker.messages == [("uploads", "1", 1)]


def test_what_a_lost_host_left_of_a_job_that_is_killed_before_the_next_has_it_is_cleaned_up(bench):
    bench.set(lease_seconds=0.5)
    bench.schedule("1")
    bench.start()
    bench.greet()
    bench.wait_for_messages(1)
    key = bench.claim("1").key
    with bench.cluster.leases.working("1", 1, cluster_site.claim_id(1)) as intake:
        intake.append_log(0, f"Journal: {key}\n".encode())
        intake.journal.append("journal", 0, b'{"what": "begin", "job": "1"}\n{"what": "asked", "kind": "image"}\n')
    bench.wait_for_messages(2)
    with bench.jobs.lock("1") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    wait_for(lambda: "cleaned" in bench.kinds())
    assert "own cleanup --yes --completed" in bench.jobs.done_log_path("1").read_text()


@pytest.mark.parametrize("is_claimed", [True, False])
def test_clean_up_whose_job_cannot_be_read_now_comes_later(bench, monkeypatch, is_claimed):
    monkeypatch.setattr(base, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(bench, "on_event", lambda event: event.end and bench.jobs.done_path("1").write_text("<"))
    bench.schedule("1")
    bench.start()
    bench.greet()
    bench.wait_for_messages(1)
    if is_claimed:
        bench.claim("1")
    bench.jobs.mark_cleanup_pending("1")
    job, _ = bench.jobs.read("1")
    ended = job_xml.serialize(job.ended(JobState.FAILED, "no"))
    if is_claimed:
        bench.done("1", code=76)
    else:  # killed
        bench.jobs.done_path("1").parent.mkdir()
        bench.jobs.done_path("1").write_text("<")
        bench.jobs.job_path("1").unlink()
    wait_for(lambda: "trouble" in bench.kinds())
    bench.jobs.done_path("1").write_bytes(ended)
    wait_for(lambda: "cleaned" in bench.kinds())


def test_job_fails_when_too_many_hosts_were_lost_with_it(bench):
    bench.set(lease_seconds=0.2, takeovers=1)
    bench.schedule("1")
    bench.start()
    bench.greet()
    for attempt in (1, 2):
        bench.wait_for_messages(attempt)
        bench.claim("1", attempt=attempt)
    wait_for(lambda: "failed" in bench.kinds())
    assert bench.jobs.read("1")[0].details == "2 hosts were lost with it, the last one was h1"


def test_broker_that_is_down_is_told_once_and_gets_all_when_it_is_back(bench):
    bench.broker.is_down = True
    bench.schedule("1", "2")
    bench.start()
    bench.greet(slots=2)
    wait_for(lambda: bench.cluster.faults()["broker"])
    bench.schedule("3", user="eve")
    bench.greet(slots=3)
    bench.broker.is_down = False
    assert sorted(job for _, job, _ in bench.wait_for_messages(3)) == ["1", "2", "3"]
    wait_for(lambda: bench.cluster.faults() == {"broker": None, "hosts": None})
    assert bench.texts("trouble") == ["the broker is not there"]


def test_attempt_that_is_over_is_not_sent_when_the_broker_is_back(bench):
    bench.set(publish_seconds=0.3)
    bench.schedule("1")
    bench.start()
    wait_for(lambda: bench.cluster.waiting())
    bench.broker.is_down = True
    bench.greet()
    wait_for(lambda: "trouble" in bench.kinds())
    wait_for(lambda: leases.read(bench.jobs, "1").state == "free")
    bench.reload()  # by then the message was thrown away
    bench.broker.is_down = False
    ((_, _, attempt), *_) = bench.wait_for_messages(1)
    assert attempt > 1


def test_killed_job_is_published_no_more_and_its_host_is_told(bench):
    bench.schedule("1", "2")
    bench.start()
    bench.greet(slots=2)
    bench.wait_for_messages(2)
    bench.claim("1")
    for name in ("1", "2"):
        with bench.jobs.lock(name) as locked:
            locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    wait_for(lambda: not bench.jobs.lease_path("2").exists())
    with bench.cluster.leases.beating("1", 1, cluster_site.claim_id(1), lambda: None) as beating:
        wait_for(beating.is_stopping)
    bench.done("1", code=143, result=None)
    wait_for(lambda: "killed" in bench.kinds())


def test_drain_takes_back_what_waits_and_ends_with_the_last_upload(bench):
    bench.schedule("1", "2")
    bench.start()
    bench.greet(slots=2)
    bench.wait_for_messages(2)
    bench.claim("1")
    bench.control.drain()
    wait_for(lambda: leases.read(bench.jobs, "2").state == "free")
    assert "left" not in bench.kinds()
    bench.done("1")
    bench.join()
    assert bench.kinds()[-1] == "left"
    bench.start()
    bench.greet(slots=1)
    assert bench.wait_for_messages(3)[2] == ("uploads", "2", 2)


def test_next_server_knows_what_hosts_have_and_what_waits(bench):
    bench.schedule("1", "2", "3")
    bench.start()
    bench.greet(slots=2)
    bench.wait_for_messages(2)
    bench.claim("1")
    bench.stop()
    bench.set(publish_seconds=0.5)
    bench.start()
    bench.greet(slots=3)
    assert bench.wait_for_messages(3)[2] == ("uploads", "2", 2)  # two of one user at most
    bench.done("1")
    wait_for(lambda: ("uploads", "3", 1) in bench.broker.messages)


def test_waiting_job_is_published_when_its_pause_is_over(bench):
    bench.worker_settings = WorkerSettings(retry_seconds=1)
    bench.schedule("1")
    bench.start()
    bench.greet()
    bench.wait_for_messages(1)
    bench.claim("1")
    bench.done("1", code=75, result="throttled")
    assert bench.state("1") is JobState.WAITING
    assert bench.wait_for_messages(2)[1] == ("uploads", "1", 2)
    assert bench.state("1") is JobState.SCHEDULED
    bench.claim("1", attempt=2)
    assert bench.jobs.read("1")[0].try_ == 2


def test_hosts_are_counted_and_missed(bench):
    bench.set(lease_seconds=0.1)
    bench.start()
    wait_for(lambda: bench.cluster.faults() == {"broker": None, "hosts": "no host takes jobs"})
    bench.greet("h1", slots=3)
    bench.greet("h2")
    bench.greet("h3", protocol=99)
    bench.greet("h4", queues=())
    bench.cluster.hosts.drain("h2", is_draining=True)
    assert bench.cluster.faults() == {"broker": None, "hosts": None}
    count = bench.cluster.count()
    assert (count.hosts, count.slots) == ({"working": 1, "draining": 2, "unready": 1, "gone": 0}, 3)
    wait_for(lambda: bench.cluster.waiting() == {"uploads": 0})


def test_region_in_clear_chooses_the_queue(bench):
    bench.set(rules=(QueueRule(queue="here", region="here"),))
    bench.schedule("1")
    bench.schedule("2", user="eve")
    bench.jobs.data_path("2").write_bytes(b'{"region": "-----BEGIN PGP MESSAGE-----"}')
    bench.schedule("3", user="bob")
    bench.jobs.data_path("3").write_bytes(b'{"regions": ["here", "there"]}')
    bench.start()
    bench.greet(slots=9, queues=("uploads", "here"))
    assert sorted(bench.wait_for_messages(3)) == [("here", "1", 1), ("here", "3", 1), ("uploads", "2", 1)]


def test_job_without_an_image_fails(bench):
    bench.schedule("1")
    bench.jobs.file_path("1").unlink()
    bench.start()
    bench.greet()
    wait_for(lambda: "failed" in bench.kinds())
    assert bench.jobs.read("1")[0].details == "the job has no image"


def die_at_line(number):
    """Kill this process at the nth line of what publishes a job; those before its lease is written don't count."""
    first = leases.write.__wrapped__.__code__
    codes = {
        first,
        *(function.__code__ for function in (Dispatcher._publish, Leases.publish, LockedJob.replace.__wrapped__)),
    }
    left, has_begun = number, False

    def trace(frame, event, _argument):
        nonlocal left, has_begun
        if frame.f_code not in codes:
            return None
        has_begun = has_begun or frame.f_code is first
        left -= has_begun and event == "line"
        if not left:
            os._exit(DIED)
        return trace

    sys.settrace(trace)


def test_server_that_dies_at_any_line_leaves_what_the_next_one_publishes(bench):
    bench.worker_settings = WorkerSettings(max_jobs_per_user=1000)
    names = [str(number) for number in range(1, LINES + 1)]

    def work(number):
        dispatcher = bench.make()
        bench.greet(slots=1000)
        die_at_line(number)
        dispatcher.run()

    for number, name in enumerate(names, 1):
        bench.schedule(name, state=JobState.WAITING, try_=1)  # scheduled ones need some steps less
        assert forked.run(lambda number=number: work(number)).returncode == DIED
    states = {(record and record.state) for record in (leases.read(bench.jobs, name) for name in names)}
    assert states == {None, LeaseState.PUBLISHED}
    bench.set(publish_seconds=0.5)
    bench.start()
    bench.greet(slots=1000)
    for name in names:
        bench.done(name, attempt=bench.claim_newest(name))
    assert sorted(event.job for event in bench.events if event.kind == "succeeded") == sorted(names)


def test_uploads_of_this_host_are_waited_for_and_count(bench, tmp_path):
    local = worker_bench.Bench(bench.jobs, tmp_path / "local")
    local.write_uploader(f"{worker_bench.HOLD}\necho image-7 > $6")
    bench.worker_settings = WorkerSettings(max_jobs_per_user=1)
    local.schedule("7")
    local.start()
    local.wait_for_event("started", "7")
    local.stop()
    bench.schedule("8")
    bench.schedule("9", user="eve")
    bench.start()
    bench.greet(slots=2)
    assert bench.wait_for_messages(1) == [("uploads", "9", 1)]
    assert "adopted" in bench.kinds()
    local.release("7")
    assert bench.wait_for_messages(2)[1] == ("uploads", "8", 1)
    assert (bench.state("7"), bench.jobs.read("7")[0].details) == (JobState.SUCCEEDED, "image-7\n")


def test_image_is_in_the_store_before_its_job_is_published_and_gone_with_it(bench, tmp_path):
    fake_store.write_keys(tmp_path / "home")
    with fake_store.running() as store:
        bench.set(image_store=StorePlace(bucket="b", prefix="", endpoint=store.url, profile="default"))
        bench.schedule("1")
        bench.start()
        bench.greet()
        assert bench.wait_for_messages(1) == [("uploads", "1", 1)]
        assert list(store.objects.values()) == [b"an image"]
        bench.claim("1")
        assert bench.cluster.lend_image("1").startswith(f"{store.url}/b/1-")
        bench.done("1")
        wait_for(lambda: not store.objects)
        wait_for(lambda: not bench.jobs.stored_path("1").exists())
