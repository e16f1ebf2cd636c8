"""One attempt at a job: claim it, fetch its image, run one uploader, and report. Blocks until it has ended.

The main thread waits for the uploader and answers its witness; `beats` renews the lease in a second thread. Both look
at the lease before anything else: if it is lost, the uploader gets SIGKILL, and neither SIGTERM nor time, for it must
not remove in the cloud what its successor goes on with.
"""

import contextlib
import dataclasses
import json
import os
import select
import signal
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from clouduploader.client.cluster import Claim, ClusterServer, LeaseLostError
from clouduploader.cluster import protocol
from clouduploader.cluster.host import claimed, directory, fetch
from clouduploader.cluster.host.beats import Beats, Lease
from clouduploader.cluster.host.claimed import ClaimedJob
from clouduploader.cluster.host.directory import AttemptDirectory
from clouduploader.cluster.host.mirror import Mirror
from clouduploader.cluster.host.uploader import DATA_PATH, Uploader
from clouduploader.errors import ClouduploaderError, LocalIOError, StoppedError, TransientError, UnavailableError
from clouduploader.store import job_log, target_data
from clouduploader.store.spool import Spool
from clouduploader.util import files, processes
from clouduploader.util.arrival import ArrivalWriter
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen
from clouduploader.util.service_log import ServiceLog

CLAIM_SECONDS = 30.0  # a claim whose answer does not come; then the server has published the job anew
PAUSE_SECONDS = 1.0  # until what the server could not take is sent again
LOOK_SECONDS = 0.25  # between looks at what has grown
MAX_RESULT_BYTES = 1024  # ours: an id or a sentence
MAY_PASS = (TransientError, UnavailableError)  # of the second, a server that can't be reached, beats tell as well


@frozen(kw_only=True)
class HostFacts:
    """What every attempt needs.

    Attributes:
        name: The host's.
        spool: Its own.
        program: The uploader.
        environment: Of the uploader.
        log: What the host does.
    """

    name: str
    spool: Path
    program: Path
    environment: Mapping[str, str] = dataclasses.field(repr=False)
    log: ServiceLog


class Attempt:
    """One attempt. Its lease is this process's as long as `run` is under way.

    Args:
        host: See HostFacts.
        server: For this thread.
        name: The job.
        number: The attempt's number.
    """

    def __init__(self, host: HostFacts, server: ClusterServer, name: str, number: int) -> None:
        self._host = host
        self._server = server
        self._claim = Claim(name, number, uuid.uuid4().hex)
        self._cancel = Cancel()
        self._troubles: set[str] = set()
        self._refusal: ClouduploaderError | None = None  # of the journal or log, for good: it ends the upload

    def run(self) -> None:
        """Do it; whatever comes of it, nothing of it is left on this host. Raises nothing of ours."""
        began = time.monotonic()
        try:
            found, sent = self._ask_for_job()
        except ClouduploaderError as exc:
            self._tell("refused", text=exc.message)
            return
        self._tell("claimed", user=found.job.user, target=found.job.target)
        try:
            code = self._work(found, sent)
        except LeaseLostError as exc:
            self._tell("lost", text=exc.message)
        except ClouduploaderError as exc:
            self._tell("released", text=exc.message)
        else:
            self._tell("done", code=code, seconds=time.monotonic() - began)

    def _ask_for_job(self) -> tuple[ClaimedJob, float]:
        """Claim the job.

        Returns:
            It, and when the claim was sent that was answered, in seconds since boot.
        """
        facts: dict[str, str | int] = {
            "host": self._host.name,
            "protocol": protocol.VERSION,
        }
        ends_at = time.monotonic() + CLAIM_SECONDS
        while True:
            sent = processes.seconds_since_boot()
            try:
                return claimed.read(self._claim.job, self._server.claim(self._claim, **facts)), sent
            except TransientError as exc:
                if time.monotonic() >= ends_at:
                    raise
                self._tell_trouble(exc.message)
            time.sleep(PAUSE_SECONDS)

    def _work(self, found: ClaimedJob, sent: float) -> int:
        """Do what was claimed.

        Returns:
            The uploader's exit code.

        Raises:
            LeaseLostError: The lease was lost; the uploader got SIGKILL.
            ClouduploaderError: The upload could not be begun; the job was given back.
        """
        with contextlib.ExitStack() as stack:
            try:
                place, uploader, lease, mirror, wake = self._begin(found, sent, stack)
            except LeaseLostError:
                raise
            except ClouduploaderError as exc:
                self._give_back(exc.message)
                raise
            code = self._watch(uploader, lease, mirror, wake, found.grace_seconds)
            result = _result(place.result_path(self._claim.job))
            if self._refusal:
                code, result = int(self._refusal.exit_code), self._refusal.message
                with contextlib.suppress(OSError), place.log_path(self._claim.job).open("ab", buffering=0) as file:
                    job_log.JobLog([file], is_verbose=False, has_times=True).line(f"Error: {result}")
            self._report(lease, mirror, code, result)
        return code

    def _begin(
        self, found: ClaimedJob, sent: float, stack: contextlib.ExitStack
    ) -> tuple[AttemptDirectory, Uploader, Lease, Mirror, int]:
        """Let the uploader begin, and all that it needs.

        Args:
            found: The job.
            sent: See `_ask_for_job`.
            stack: Ends it all.

        Returns:
            The directory, the uploader, the lease, what brings the journal to the server, and a descriptor that can be
            read once the lease has changed.

        Raises:
            LeaseLostError: The lease was lost.
            ClouduploaderError: It can't begin here.
        """
        place = stack.enter_context(directory.made(self._host.spool, self._claim.job, self._claim.attempt))
        try:
            wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            stack.callback(os.close, wake)
            arrival = stack.enter_context(ArrivalWriter())
        except OSError as exc:
            raise LocalIOError(f"the uploader can't be started: {exc.strerror}") from exc
        uploader = self._fork(found, place, arrival)
        stack.callback(uploader.close)

        def change() -> None:
            if lease.is_lost:
                uploader.kill()
            else:
                uploader.stop()
            self._cancel.request(signal.SIGTERM)
            os.eventfd_write(wake, 1)

        lease = Lease(found.lease_seconds, sent=sent, on_change=change)
        lease.check()
        stack.enter_context(
            Beats(
                self._server.another(),
                self._claim,
                lease,
                seconds=found.beat_seconds,
                progress=lambda: _progress(place, self._claim.job),
                on_trouble=self._tell_trouble,
            )
        )
        mirror = stack.enter_context(
            Mirror(
                self._server,
                self._claim,
                journal_dir=place.state_dir / found.journal_key,
                log=place.log_path(self._claim.job),
            )
        )
        try:
            mirror.fetch(found.journal_files)
            fetching = fetch.BackgroundFetch(
                self._server.another(),
                self._claim,
                place.file_path(self._claim.job),
                size=found.image_bytes,
                sha256=found.image_sha256,
                arrival=arrival,
                on_error=self._tell_trouble,
            )
            self._start(uploader, lease, stack.enter_context(fetching))
        except ClouduploaderError:
            lease.check()
            raise
        return place, uploader, lease, mirror, wake

    def _fork(self, found: ClaimedJob, place: AttemptDirectory, arrival: ArrivalWriter) -> Uploader:
        """Make the process of the uploader, which waits, and its record with its pid."""
        name, job = self._claim.job, found.job
        uploader = Uploader(
            self._host.program,
            [
                (job.user or "").encode(),
                (job.target or "").encode(),
                os.fsencode(place.file_path(name)),
                os.fsencode(DATA_PATH),
                (job.filename or "").encode(),
                os.fsencode(place.result_path(name)),
            ],
            environment={
                **self._host.environment,
                "CLOUDUPLOADER_SPOOL": str(place.directory),
                "CLOUDUPLOADER_STATE": str(place.state_dir),
                "TMPDIR": str(place.temporary_dir),
            },
            directory=place.work_dir(name),
            log=place.log_path(name),
            data=json.dumps({**found.data, target_data.SECRETS_KEY: list(found.secrets)}).encode(),
            arrival=arrival,
        )
        try:
            place.write_record(dataclasses.replace(job, pid=uploader.pid))
        except BaseException:
            uploader.close()
            raise
        return uploader

    def _start(self, uploader: Uploader, lease: Lease, fetching: fetch.BackgroundFetch) -> None:
        """Let the uploader begin once the image comes; one whose job was killed before has ended instead.

        Raises:
            LeaseLostError: The lease was lost.
            ClouduploaderError: The image can't be had.
        """
        try:
            fetching.wait_begun(self._cancel)
        except StoppedError:
            lease.check()
            uploader.kill()
        else:
            lease.check()
            uploader.start()
            self._tell("started", process=uploader.pid)

    def _watch(self, uploader: Uploader, lease: Lease, mirror: Mirror, wake: int, grace_seconds: float) -> int:
        """Wait for the uploader's end, and serve it until then.

        It gets SIGKILL if its journal or log can't be brought to the server, now or later, for it can't clean up
        without: the server does.

        Returns:
            Its exit code.

        Raises:
            LeaseLostError: The lease was lost.
        """
        poll = select.poll()
        for descriptor in (uploader.pidfd, uploader.witness.fileno(), wake):
            poll.register(descriptor, select.POLLIN)
        kill_at: float | None = None
        pause_until = 0.0
        is_asked = False
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(1000 * LOOK_SECONDS)}
            lease.check()
            now = time.monotonic()
            if uploader.pidfd in ready:
                return uploader.wait()
            if wake in ready:
                os.eventfd_read(wake)
            if lease.is_stopping and kill_at is None:  # it has its SIGTERM
                self._tell("stopping")
                kill_at = now + grace_seconds
            if kill_at is not None and now >= kill_at:
                uploader.kill()
            if uploader.witness.fileno() in ready:
                is_asked = uploader.is_asking()
                if not is_asked:
                    poll.unregister(uploader.witness)
            if now < pause_until or self._refusal:
                continue
            try:
                mirror.send_journal()
                mirror.send_log()  # before the uploader goes on: the log tells which journal is the job's
                if is_asked:
                    lease.check()
                    uploader.confirm()
                    is_asked = False
            except LeaseLostError as exc:
                lease.lose(exc.message)
            except MAY_PASS as exc:
                self._tell_trouble(exc.message)
                pause_until = time.monotonic() + PAUSE_SECONDS
            except ClouduploaderError as exc:
                self._refusal = exc
                uploader.kill()

    def _report(self, lease: Lease, mirror: Mirror, code: int, result: str | None) -> None:
        """Send what is left, and say how the uploader has ended; tried until the lease is over.

        Journal and log that can't be sent, now or later, have no part in how it ended, or have ended it.

        Raises:
            LeaseLostError: The lease was lost, or runs out, for the server takes no end.
        """

        def report() -> None:
            for send in (mirror.send_journal, mirror.send_log):
                try:
                    send()
                except (LeaseLostError, *MAY_PASS):
                    raise
                except ClouduploaderError as exc:
                    self._tell_trouble(exc.message)
            self._server.done(self._claim, exit_code=code, result=result)

        while True:
            lease.check()
            try:
                report()
            except MAY_PASS as exc:
                self._tell_trouble(exc.message)
                time.sleep(PAUSE_SECONDS)
            except ClouduploaderError as exc:
                raise LeaseLostError(exc.message) from exc
            else:
                return

    def _give_back(self, reason: str) -> None:
        """Have another host take the job; if the server can't be told, its lease runs out."""
        with contextlib.suppress(ClouduploaderError):
            self._server.release(self._claim, reason)

    def _tell(self, event: str, **facts: str | float | None) -> None:
        self._host.log.tell(event, job=self._claim.job, attempt=self._claim.attempt, **facts)

    def _tell_trouble(self, text: str) -> None:
        """Say once in an attempt what is the matter."""
        if text not in self._troubles:
            self._troubles.add(text)
            self._tell("trouble", text=text)


def _progress(place: AttemptDirectory, name: str) -> int | None:
    """Return the percents that the uploader has noted in its record."""
    with contextlib.suppress(ClouduploaderError):
        return Spool(place.directory).read(name)[0].progress
    return None


def _result(path: Path) -> str | None:
    """Return what the uploader has written as its result; None for nothing."""
    with contextlib.suppress(OSError), files.open_read(path) as file:
        return file.read(MAX_RESULT_BYTES).decode(errors="replace")
    return None
