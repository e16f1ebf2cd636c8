"""What Celery's application says to a real RabbitMQ."""

import pytest
from fakes import rabbitmq

from clouduploader.cluster import broker as cluster_broker
from clouduploader.cluster import protocol
from clouduploader.cluster.settings import ClusterSettings
from clouduploader.errors import NetworkError

SERVER = "https://uploads.example.org:5453"


@pytest.fixture(scope="module")
def broker():
    """One broker for all tests of the module."""
    with rabbitmq.running() as started:
        yield started


@pytest.fixture
def app(broker):
    made = cluster_broker.make_app(ClusterSettings(broker=broker.url, host="server"), broker.password)
    yield made
    made.close()


def test_message_says_job_attempt_and_server_and_outlives_the_broker(broker, app):
    queue = cluster_broker.queue_name("of-messages")
    app.send_task(protocol.TASK, args=["7", 3, SERVER], queue=queue, priority=2)
    broker.kill()
    broker.start()
    ((properties, body),) = broker.messages(queue)
    assert body[:2] == [["7", 3, SERVER], {}]
    assert properties["application_headers"]["task"] == protocol.TASK
    assert properties["priority"] == 2
    assert broker.password not in f"{properties}{body}"


def test_message_is_sent_after_its_connection_was_closed(broker, app):
    queue = cluster_broker.queue_name("of-closings")
    for attempt in (1, 2):
        app.send_task(protocol.TASK, args=["7", attempt, SERVER], queue=queue)
        broker.close_all_connections()
    assert [body[0][1] for _, body in broker.messages(queue)] == [1, 2]


@pytest.fixture
def publisher(broker):
    made = cluster_broker.Publisher(ClusterSettings(broker=broker.url, host="server"), broker.password)
    yield made
    made.close()


def test_publisher_knows_how_many_messages_wait(broker, publisher):
    assert publisher.depth("of-depths") == 0
    for attempt in (1, 2):
        publisher.publish("of-depths", job="7", attempt=attempt, url=SERVER)
        broker.close_all_connections()
    assert publisher.depth("of-depths") == 2
    broker.kill()
    with pytest.raises(NetworkError) as caught:
        publisher.publish("of-depths", job="7", attempt=3, url=SERVER)
    assert str(broker.port) in caught.value.message
    assert broker.password not in caught.value.message
    broker.start()
    publisher.publish("of-depths", job="7", attempt=3, url=SERVER)
    messages = broker.messages(cluster_broker.queue_name("of-depths"))
    assert [body[0] for _, body in messages] == [["7", attempt, SERVER] for attempt in (1, 2, 3)]
    assert [properties["delivery_mode"] for properties, _ in messages] == [2, 2, 2]


def test_publisher_says_that_a_password_is_wrong(broker):
    publisher = cluster_broker.Publisher(ClusterSettings(broker=broker.url, host="server"), "wrong one")
    with pytest.raises(NetworkError) as caught:
        publisher.depth("of-nothing")
    assert "refused" in caught.value.message
    assert "wrong one" not in caught.value.message
