import json

import pytest
from fakes.scripted_server import answer, ok, refusal

from clouduploader.admin import cluster
from clouduploader.client.api import ApiServer
from clouduploader.errors import DeniedError, UnavailableError

DONE = ok(b"{}")


def status(*hosts):
    """The answer of a server where these hosts work on a job each."""
    lease = {"user": "tom", "attempt": 1, "takeovers": 0, "queue": "uploads"}
    lease |= dict.fromkeys(("since", "until"), "2026-11-29T12:00:00Z")
    leases = [{"job": str(number), "host": host, **lease} for number, host in enumerate(hosts)]
    greeted = {"version": "1", "protocol": 1, "slots": 2, "busy": 1, "queues": [], "seen": "2026-11-29T12:00:00Z"}
    greeted |= {"skew_seconds": 0, "draining": True, "gone": False}
    known = [{"name": host, **greeted} for host in dict.fromkeys(hosts)]
    return ok(json.dumps({"hosts": known, "queues": [], "leases": leases}).encode())


@pytest.fixture
def drain(make_server):
    """Return a function that drains host a of a scripted server; gives the outcome, and how often it looked again."""

    def drain(*answers, **options):
        pauses = []
        found = cluster.drain(ApiServer(make_server(*answers).url), "a", pause=pauses.append, **options)
        return found, len(pauses)

    return drain


def test_drain_tells_what_the_host_works_on(drain):
    assert drain(DONE, status("a", "b", "a")) == (cluster.Draining("a", True, True, ("0", "2")), 0)
    assert drain(DONE, status("b"), is_draining=False) == (cluster.Draining("a", False, False, ()), 0)


def test_drain_waits_until_the_host_has_no_job_also_while_the_server_is_away(drain):
    away = refusal("503 Service Unavailable", "starting")
    found, looks = drain(DONE, status("a", "b"), away, status("b"), is_waiting=True)
    assert (found.jobs, looks) == ((), 2)


@pytest.mark.parametrize(("refused", "error"), [("409 Conflict", UnavailableError), ("403 Forbidden", DeniedError)])
def test_refusal_is_told_before_it_waits(drain, refused, error):
    with pytest.raises(error, match="because"):
        drain(answer(refused, json.dumps({"detail": "because"}).encode()), is_waiting=True)
