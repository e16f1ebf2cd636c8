"""Clean-ups in the cloud, after uploads that could not do it."""

import pytest

from clouduploader.model.job import JobState
from clouduploader.store import journal
from clouduploader.worker import base, cleanup
from clouduploader.worker import outcome as worker_outcome


def mark_pending(bench, name):
    """Archive a job of a dead upload, after which a clean-up is due."""
    bench.schedule(name, state=JobState.FAILED, details=worker_outcome.INTERRUPTED)
    with bench.jobs.lock(name) as locked:
        locked.archive(locked.job)
    bench.jobs.mark_cleanup_pending(name)


@pytest.mark.parametrize(("code", "is_due"), [(0, False), (69, True), (75, True)])
def test_clean_up_is_due_until_it_was_done(bench, code, is_due):
    """Whatever becomes of the worker that archived the job."""
    bench.write_own(f"exit {code}")
    bench.write_uploader("true")
    bench.schedule("1", state=JobState.FAILED, details=worker_outcome.INTERRUPTED)
    with bench.jobs.lock("1") as locked:
        locked.archive(locked.job)
    for name in ("1", "2"):
        bench.jobs.mark_cleanup_pending(name)  # of the job 2 there is nothing any more
    bench.start()
    assert bench.wait_for_event("cleaned", "1") == f"the clean-up in the cloud ended with {code}"
    assert bench.jobs.pending_cleanups() == ["1"] * is_due
    assert bench.log("1") == "own cleanup --yes --completed --target=ec2 --job=1\n"


def test_clean_up_that_left_something_is_tried_again(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(cleanup, "RETRY_SECONDS", 0.05)
    bench.write_own(f"[ -e {tmp_path}/third ] && exit 0; [ -e {tmp_path}/second ] && touch {tmp_path}/third;"
                    f" touch {tmp_path}/second; exit 75")  # fmt: skip
    bench.write_uploader("true")
    mark_pending(bench, "1")
    bench.start()
    bench.wait_for(lambda: [text[-2:] for kind, _, text in bench.events if kind == "cleaned"] == ["75", "75", " 0"])
    assert not bench.jobs.pending_cleanups()


def test_clean_up_of_a_job_that_cannot_be_read_at_the_start_comes_later(bench, monkeypatch):
    monkeypatch.setattr(base, "RETRY_SECONDS", 0.05)
    bench.write_own("exit 0")
    bench.write_uploader("true")
    mark_pending(bench, "1")
    good = bench.jobs.done_path("1").read_bytes()
    bench.jobs.done_path("1").write_text("<")
    bench.start()
    bench.wait_for_event("trouble", "1")
    bench.jobs.done_path("1").write_bytes(good)
    bench.wait_for(lambda: not bench.jobs.pending_cleanups())


def test_clean_ups_are_bounded(bench, tmp_path):
    """After an outage there are many."""
    bench.write_own(f"touch {tmp_path}/run-$$; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done")
    bench.write_uploader("true")
    names = [str(number) for number in range(1, 3 * cleanup.MAX_AT_ONCE)]
    for name in names:
        mark_pending(bench, name)
    bench.start()
    bench.wait_for(lambda: len(list(tmp_path.glob("run-*"))) >= cleanup.MAX_AT_ONCE)
    bench.schedule("100")
    bench.wait_for_end("100")  # the uploads of others go on meanwhile
    assert len(list(tmp_path.glob("run-*"))) == cleanup.MAX_AT_ONCE
    (tmp_path / "go").touch()
    bench.wait_for(lambda: {job for kind, job, _ in bench.events if kind == "cleaned"} == set(names))
    assert not bench.jobs.pending_cleanups()


@pytest.mark.parametrize(("outcome", "is_due"), [(journal.AttemptOutcome.SUCCEEDED, False), (None, True)])
def test_clean_up_that_has_not_ended_is_due(bench, tmp_path, outcome, is_due):
    barrier = tmp_path / "barrier"
    barrier.touch()
    bench.write_own(f"while [ -e {barrier} ]; do sleep 0.05; done")
    bench.write_uploader("true")
    bench.schedule_uploading()
    bench.jobs.log_path("1").write_text(f"Journal: {'ab' * 16}\n")
    bench.write_journal("ab" * 16, "1", outcome, tmp_path)
    bench.start()
    bench.wait_for_end("1")
    bench.stop()
    barrier.unlink()
    assert bench.jobs.pending_cleanups() == ["1"] * is_due
