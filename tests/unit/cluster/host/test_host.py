import io
import logging
import os
import threading
import types

import pytest
from amqp.exceptions import AccessRefused, ConnectionForced
from celery.worker import state

from clouduploader.cluster import broker, protocol
from clouduploader.cluster.host import host, messages
from clouduploader.cluster.host.attempt import HostFacts
from clouduploader.cluster.settings import ClusterSettings
from clouduploader.errors import TransientError
from clouduploader.util.service_log import ServiceLog
from tests.fakes.cluster_server import FakeCluster
from tests.fakes.waiting import wait_for


class Consumer:
    """Celery's, that does at once what is to be done soon."""

    def __init__(self, queues):
        self.queues = set(queues)
        self.task_consumer = types.SimpleNamespace(consuming_from=self.queues.__contains__)
        self.cancel_task_queue = self.queues.discard
        self.add_task_queue = self.queues.add

    def call_soon(self, function, *arguments):
        function(*arguments)


@pytest.fixture
def cluster():
    fake = FakeCluster()
    yield fake
    fake.close()


@pytest.fixture
def log():
    return io.StringIO()


@pytest.fixture
def consumer():
    return Consumer({"clouduploader.uploads", "clouduploader.large"})


@pytest.fixture
def greeter(cluster, consumer, log, tmp_path):
    facts = HostFacts(name="a", spool=tmp_path, program=tmp_path, environment={}, log=ServiceLog(log))
    settings = ClusterSettings(host="a", slots=3, serves=("uploads", "large"))
    return host.Greeter(types.SimpleNamespace(consumer=consumer), settings, cluster.client(), facts)


def test_host_says_what_it_can(cluster, greeter, tmp_path):
    greeter.connected(is_connected=True)
    with greeter:
        wait_for((tmp_path / host.GREETED_NAME).exists)
    found = cluster.greetings[0]
    assert {name: found[name] for name in ("name", "protocol", "slots", "queues")} == {
        "name": "a", "protocol": protocol.VERSION, "slots": 3, "queues": ["uploads", "large"],
    }  # fmt: skip


def test_host_without_broker_gets_no_jobs(cluster, greeter):
    with greeter:
        for is_connected, queues in ((False, []), (True, ["uploads", "large"]), (False, [])):
            greeter.connected(is_connected=is_connected)
            cluster.wait_for(lambda queues=queues: cluster.greetings and cluster.greetings[-1]["queues"] == queues)


def test_each_loss_of_the_broker_is_told_and_each_return(monkeypatch):
    told = []
    monkeypatch.setattr(messages.CleanConsumer, "on_connection_error_after_connected", lambda _self, _exc: None)
    consumer = host._HostConsumer.__new__(host._HostConsumer)
    consumer.init_callback = None
    consumer.controller = types.SimpleNamespace(
        on_loss=lambda: told.append("loss"), on_ready=lambda: told.append("ready")
    )
    for _ in range(2):
        consumer.on_ready()
        consumer.on_connection_error_after_connected(ConnectionForced("closed"))
    assert told == ["ready", "loss"] * 2


def test_host_that_is_drained_takes_no_messages_until_it_is_not(cluster, consumer, greeter):
    queues = set(consumer.queues)
    cluster.is_draining = True
    with greeter:
        wait_for(lambda: not consumer.queues)
        cluster.is_draining = False
        wait_for(lambda: consumer.queues == queues)


@pytest.mark.filterwarnings("ignore:This process")  # is multi-threaded, as that of a host is
def test_no_process_is_forked_while_the_server_is_asked(greeter, monkeypatch):
    is_asked, may_answer, forked = threading.Event(), threading.Event(), []

    def greet(_greeting):
        is_asked.set()
        may_answer.wait()
        return {}

    def fork():
        forked.append(os.fork())
        if not forked[0]:
            os._exit(0)

    monkeypatch.setattr(greeter._server, "greet", greet)
    with greeter:
        is_asked.wait()
        forking = threading.Thread(target=fork)
        forking.start()
        forking.join(0.2)
        assert not forked
        may_answer.set()
        forking.join()
    assert os.waitpid(forked[0], 0)[1] == 0


def test_host_that_leaves_says_so_at_once(cluster, greeter):
    greeter.connected(is_connected=True)
    with greeter:
        cluster.wait_for(lambda: cluster.greetings)
        greeter.leave()
        cluster.wait_for(lambda: cluster.greetings[-1]["queues"] == [])


def test_server_that_is_not_there_is_told_once(cluster, greeter, log, monkeypatch):
    monkeypatch.setattr(host, "RETRY_SECONDS", 0.05)
    cluster.failures = {"hosts": [503, 503]}
    with greeter:
        cluster.wait_for(lambda: cluster.greetings)
        wait_for(lambda: "event=greeted" in log.getvalue())
    assert log.getvalue().count("event=trouble") == 1
    assert "it is asked again until it answers" in log.getvalue()


@pytest.mark.parametrize(("error", "is_softened"), [(ConnectionForced("closed"), True), (ValueError("a bug"), False)])
def test_lost_broker_is_a_warning_and_a_bug_has_its_traceback(error, is_softened):
    record = logging.LogRecord("made-up", logging.CRITICAL, "", 1, "trouble", (), (type(error), error, None))
    assert host.soften(record)
    assert (record.exc_info is None, record.levelname) == (is_softened, "WARNING" if is_softened else "CRITICAL")


def test_what_celery_says_is_one_line():
    record = logging.LogRecord("made-up", logging.ERROR, "", 1, "no %s:\n%s\n", ("broker", "trying again"), None)
    host.soften(record)
    assert record.getMessage() == "no broker: trying again"


def test_messages_are_cleaned_before_celery_sees_them():
    assert issubclass(host._HostConsumer, messages.CleanConsumer)


def test_broker_that_refuses_is_not_asked_again_at_once(monkeypatch):
    pauses = []
    monkeypatch.setattr(host.time, "sleep", pauses.append)
    app = broker.make_app(ClusterSettings(broker="amqp://uploads@localhost/", host="a"), "made-up")
    consumer = host._HostConsumer.__new__(host._HostConsumer)
    consumer.conninfo = app.connection_for_read()
    consumer.on_connection_error_before_connected(AccessRefused("the password is wrong"))
    assert pauses == [host.REFUSED_SECONDS]


@pytest.mark.parametrize(
    ("exit_code", "asked"), [(1, None), (1, 0), (None, None)]
)  # the last where no descriptor is free
def test_host_that_ended_by_a_fault_is_started_again(monkeypatch, exit_code, asked):
    monkeypatch.setattr(state, "should_stop", asked)
    with pytest.raises(TransientError, match="in the log"):
        host.check_end(types.SimpleNamespace(exitcode=exit_code))


def test_host_that_was_asked_to_end_stays_down(monkeypatch):
    monkeypatch.setattr(state, "should_stop", 0)
    for exit_code in (0, None):  # once, and twice
        host.check_end(types.SimpleNamespace(exitcode=exit_code))
