import pytest

from clouduploader.cluster.dispatch import hosts
from clouduploader.cluster.dispatch.hosts import Greeting, Hosts
from clouduploader.errors import CannotCreateError, DataError


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def known(tmp_path, clock):
    return Hosts(tmp_path, lease_seconds=lambda: 60, clock=clock)


def greeting(name="h1", **changes):
    fields = {"protocol": 1, "version": "1", "slots": 2, "queues": ("uploads",), "clock": 0.0} | changes
    return Greeting(name=name, **fields)


def test_host_is_known_while_it_greets_and_gone_when_it_does_not(known, clock):
    assert known.hosts() == []
    assert not known.greet(greeting("h2"))
    clock.now += 30
    known.greet(greeting("h1", slots=3))
    found = known.hosts()
    assert [(host.greeting.name, host.greeting.slots, host.is_gone, host.is_usable) for host in found] == [
        ("h1", 3, False, True),
        ("h2", 2, False, True),
    ]
    clock.now += 31
    assert [(host.is_gone, host.is_usable) for host in known.hosts()] == [(False, True), (True, False)]
    clock.now += hosts.FORGET_SECONDS
    known.greet(greeting("h3"))
    assert [host.greeting.name for host in known.hosts()] == ["h3"]


def test_host_whose_clock_is_wrong_is_shown_with_it_and_nothing_else_changes(known):
    known.greet(greeting(clock=0.0))
    (host,) = known.hosts()
    assert host.skew_seconds == -host.seen
    assert host.is_usable


def test_host_of_another_protocol_gets_no_jobs(known):
    assert known.greet(greeting(protocol=2))
    assert [host.is_usable for host in known.hosts()] == [False]


def test_drained_host_stays_so_over_a_restart_of_the_server(known, tmp_path, clock):
    known.drain("h1", is_draining=True)
    known.drain("h1", is_draining=True)
    assert Hosts(tmp_path, lease_seconds=lambda: 60, clock=clock).greet(greeting())
    assert known.greet(greeting())
    assert [host.is_usable for host in known.hosts()] == [False]
    for _ in range(2):
        known.drain("h1", is_draining=False)
    assert not known.greet(greeting())
    assert list((tmp_path / hosts.DIRECTORY).iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "a b", "ä", "a" * 65, "-a", "a\n"])
def test_name_that_is_none_is_refused(known, tmp_path, name):
    for call in (lambda: known.greet(greeting(name)), lambda: known.drain(name, is_draining=True)):
        with pytest.raises(DataError):
            call()
    assert list(tmp_path.iterdir()) == []


def test_number_of_hosts_is_limited_and_those_that_are_gone_make_room(known, clock, monkeypatch):
    monkeypatch.setattr(hosts, "MAX_HOSTS", 1)
    known.greet(greeting())
    known.greet(greeting())
    with pytest.raises(DataError, match="there are 1 hosts already"):
        known.greet(greeting("h2"))
    clock.now += 61
    known.greet(greeting("h2"))
    assert [host.greeting.name for host in known.hosts()] == ["h2"]


def test_drain_that_cannot_be_written_down_is_an_error(known, tmp_path):
    (tmp_path / hosts.DIRECTORY).touch()
    with pytest.raises(CannotCreateError):
        known.drain("h1", is_draining=True)


def test_name_belongs_to_its_first_token_until_the_host_is_gone(known, clock):
    known.greet(greeting(), token="a")
    assert known.is_of("h1", "a")
    assert not known.is_of("h1", "b")
    with pytest.raises(DataError, match="another host is called h1"):
        known.greet(greeting(slots=9), token="b")
    assert [host.greeting.slots for host in known.hosts()] == [2]
    clock.now += 61
    known.greet(greeting(slots=9), token="b")
    assert not known.is_of("h1", "a")
