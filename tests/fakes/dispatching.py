"""A dispatcher that runs in a thread of the test, hosts that the test plays, and a broker that keeps what it gets."""

import contextlib
import dataclasses
import threading

from fakes.cluster_site import PASSWORD, claim_id
from fakes.waiting import wait_for

from clouduploader.cluster.dispatch.dispatcher import Dispatcher
from clouduploader.cluster.dispatch.hosts import Greeting
from clouduploader.cluster.dispatch.leases import Claim, StaleError
from clouduploader.cluster.settings import ClusterSettings
from clouduploader.errors import NetworkError
from clouduploader.model.job import JobState
from clouduploader.store import config
from clouduploader.worker.control import WorkerControl
from clouduploader.worker.settings import WorkerSettings

SERVER = "https://uploads.example.org"


class KeptMessages:
    """A broker that keeps its messages, and is down as long as a test says so.

    Attributes:
        messages: (queue, job, attempt) of each.
        is_down: Whether it can't be reached.
    """

    def __init__(self):
        self.messages = []
        self.is_down = self.is_closed = False

    def publish(self, queue, *, job, attempt, url):
        assert url == SERVER
        self._check()
        self.messages.append((queue, job, attempt))

    def depth(self, queue):
        self._check()
        return sum(message[0] == queue for message in self.messages)

    def close(self):
        self.is_closed = True

    def _check(self):
        if self.is_down:
            raise NetworkError("the broker is not there")


class Bench:
    """A spool with its dispatcher.

    Attributes:
        jobs: The spool.
        broker: See KeptMessages.
        events: Of the dispatcher.
        on_event: Called with each of them, in the thread that tells it.
        settings: Of the cluster; changes count from the next reload.
        worker_settings: The same of the worker.
    """

    def __init__(self, jobs, home, make_job):
        self.jobs, self.broker, self.events = jobs, KeptMessages(), []
        self._make_job, self.on_event = make_job, lambda _event: None
        own = home / "clouduploader"  # cleans up
        own.write_text('#!/bin/sh\necho "own $@"\n')
        own.chmod(0o755)
        self._config = config.load(home=home, spool=jobs.directory, environment={"PATH": f"{home}:/usr/bin:/bin"})
        self.settings = ClusterSettings(broker="amqp://mq", server=SERVER, host="server", publish_seconds=600)
        self.worker_settings = WorkerSettings()
        self.control = self._thread = self._dispatcher = self._error = None

    def set(self, **values):
        self.settings = dataclasses.replace(self.settings, **values)

    def make(self):
        """Make a dispatcher, which does not run."""
        self.control = WorkerControl()
        self._dispatcher = Dispatcher(
            self._config,
            read_settings=lambda: self.worker_settings,
            read_cluster=lambda: self.settings,
            publisher=self.broker,
            control=self.control,
            on_event=self._note,
        )
        return self._dispatcher

    def _note(self, event):
        self.events.append(event)
        self.on_event(event)

    def start(self):
        """Start a dispatcher, and wait until it is ready."""
        count, dispatcher = len(self.events), self.make()
        self._error = None

        def run():
            try:
                dispatcher.run()
            except BaseException as exc:  # noqa: BLE001 handed to the thread of the test
                self._error = exc

        self._thread = threading.Thread(target=run)
        self._thread.start()
        wait_for(lambda: self._error or "ready" in self.kinds()[count:])
        if self._error:
            self.join()

    def stop(self):
        if self._thread:
            self.control.leave()
            self.join()

    def join(self):
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._thread = None
        self.control.close()
        if self._error:
            raise self._error

    @property
    def cluster(self):
        return self._dispatcher.cluster

    def kinds(self):
        return [str(event.kind) for event in self.events]

    def texts(self, kind):
        return [event.text for event in self.events if event.kind == kind]

    def schedule(self, *names, **fields):
        """Put jobs into the spool as a server does."""
        data = b'{"region": "here", "password": "%s"}' % PASSWORD.encode()
        for name in names:
            fields = {"state": JobState.SCHEDULED, "target": "made-up", "size": 8, **fields}
            self.jobs.data_path(name).write_bytes(data)
            self.jobs.file_path(name).write_bytes(b"an image")
            self._make_job(self.jobs, name, **fields)

    def greet(self, name="h1", slots=1, queues=("uploads",), protocol=1):
        self.cluster.hosts.greet(
            Greeting(name=name, protocol=protocol, version="1", slots=slots, queues=queues, clock=0.0)
        )

    def wait_for_messages(self, count):
        wait_for(lambda: len(self.broker.messages) >= count)
        return self.broker.messages

    def reload(self):
        """Let the dispatcher take the settings as they are now."""
        count = self.kinds().count("settings")
        self.control.reload()
        wait_for(lambda: self.kinds().count("settings") > count)

    def claim_newest(self, name):
        """Claim the newest attempt of a job, however often it is published anew meanwhile; return its number."""
        claimed = []

        def claim():
            lease = self.cluster.leases.view(name)
            if lease and lease.state == "published":
                with contextlib.suppress(StaleError):
                    self.claim(name, attempt=lease.attempt)
                    claimed.append(lease.attempt)
            return claimed

        wait_for(claim)
        return claimed[0]

    def claim(self, name, attempt=1, host="h1"):
        return self.cluster.leases.claim(name, Claim(attempt=attempt, id=claim_id(attempt), host=host, protocol=1))

    def done(self, name, attempt=1, code=0, result="image-1"):
        self.cluster.leases.done(name, attempt, claim_id(attempt), code, result)

    def state(self, name):
        return self.jobs.read(name)[0].state
