"""Messages on their way to a broker, whatever comes meanwhile."""

import threading

import pytest
from fakes import dispatching
from fakes.waiting import wait_for

from clouduploader.cluster.dispatch.outbox import ENDED, Message, Outbox


@pytest.fixture
def broker():
    return dispatching.KeptMessages()


@pytest.fixture
def outbox(broker):
    made = Outbox(broker, url=dispatching.SERVER, queues=["q"], wake=lambda: None)
    yield made
    made.close()


def message(job):
    return Message(job=job, attempt=1, queue="q")


def test_message_that_comes_while_the_next_one_is_chosen_is_sent_too(broker, outbox):
    others = []

    class Messages(dict):
        def values(self):
            found = iter(super().values())
            if not others:
                others.append(threading.Thread(target=outbox.put, args=(message("2"),)))
                others[0].start()
                others[0].join(0.1)  # waits for its turn
            return found

    outbox._messages = Messages({"1": message("1")})
    outbox.start()
    wait_for(lambda: broker.messages == [("q", "1", 1), ("q", "2", 1)])
    others[0].join()
    assert outbox.fault is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_end_of_the_thread_is_told(broker, outbox, monkeypatch):
    monkeypatch.setattr(broker, "publish", lambda *_arguments, **_more: 1 // 0)
    outbox.put(message("1"))
    outbox.start()
    wait_for(lambda: outbox.fault == ENDED)
    assert outbox.depths == {}
