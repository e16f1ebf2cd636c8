"""The order of publication: limits, priorities and fairness hold for whatever waits."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouduploader.cluster.dispatch.order import HostRoom, OrderLimits, Room, choose

USERS = ["ann", "bob", "eve", None]


def chosen(jobs, *, running=(), max_jobs=100, per_user=100, priorities=None, has_room=lambda _job: True):
    """Choose among (user, id)."""
    by_user = {}
    for job in sorted(jobs, key=lambda job: job[1]):
        by_user.setdefault(job[0], []).append(job)
    limits = OrderLimits(max_jobs=max_jobs, max_jobs_per_user=per_user, priorities=priorities or {})
    return list(choose(by_user, Counter(running), limits, number=lambda job: job[1], has_room=has_room))


def test_users_take_turns_and_each_users_jobs_keep_their_order():
    jobs = [("ann", 1), ("ann", 2), ("ann", 3), ("bob", 4), ("bob", 5)]
    assert [name for _, name in chosen(jobs)] == [1, 4, 2, 5, 3]


def test_user_with_fewer_running_jobs_comes_first():
    assert chosen([("ann", 1), ("bob", 2)], running=["ann"]) == [("bob", 2), ("ann", 1)]


def test_priority_wins_over_fairness():
    jobs = [("ann", 1), ("bob", 2), ("bob", 3)]
    assert [name for _, name in chosen(jobs, priorities={"bob": 9})] == [2, 3, 1]


def test_job_without_room_holds_back_no_other():
    jobs = [("ann", 1), ("ann", 2), ("bob", 3)]
    assert [name for _, name in chosen(jobs, has_room=lambda job: job[1] != 1)] == [2, 3]


@given(
    st.lists(st.sampled_from(USERS), max_size=30),
    st.lists(st.sampled_from(USERS), max_size=8),
    st.integers(1, 12),
    st.integers(1, 5),
    st.dictionaries(st.sampled_from(["ann", "bob", "eve"]), st.integers(0, 9)),
)
def test_limits_hold_and_what_stays_has_a_reason(users, running, max_jobs, per_user, priorities):
    jobs = [(user, number) for number, user in enumerate(users)]
    done = chosen(jobs, running=running, max_jobs=max_jobs, per_user=per_user, priorities=priorities)
    counts = Counter(running)
    for user, number in done:
        waiting = [job for job in jobs if job not in done[: done.index((user, number))]]
        rivals = {other for other, _ in waiting if counts[other] < per_user}
        best = max(priorities.get(other, 0) for other in rivals)
        assert priorities.get(user, 0) == best
        assert counts[user] == min(counts[other] for other in rivals if priorities.get(other, 0) == best)
        assert number == min(found for other, found in waiting if other == user)
        counts[user] += 1
        assert counts[user] <= per_user
    assert len(done) <= max(0, max_jobs - len(running))
    if counts.total() < max_jobs:
        assert all(counts[user] >= per_user for user, _ in set(jobs) - set(done))


def most(hosts, queues):
    """How many of the queues' jobs can be done at most, found by trying all ways."""
    slots = [host for host in hosts for _ in range(host.slots)]
    best = 0
    for order in itertools.permutations(range(len(slots))):
        fits = sum(queue in slots[index].queues for index, queue in zip(order, queues, strict=False))
        best = max(best, fits)
    return best


HOSTS = st.lists(
    st.builds(HostRoom, queues=st.frozensets(st.sampled_from("xyz"), min_size=1), slots=st.integers(0, 2)), max_size=3
)


@given(HOSTS, st.lists(st.sampled_from("xyz"), max_size=5))
def test_no_more_is_taken_than_hosts_can_do_and_no_less(hosts, queues):
    room = Room(hosts)
    taken = [queue for queue in queues if room.take(queue)]
    slots = sum(host.slots for host in hosts)
    padded = [*queues, *[""] * (slots - len(queues))]
    if len(queues) <= slots:
        assert len(taken) == most(hosts, padded)
    assert most(hosts, [*taken, *[""] * (slots - len(taken))]) == len(taken) <= slots
    assert room.has_any == (len(taken) < slots)


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_host_of_two_queues_gives_way_to_the_job_that_has_no_other(order):
    room = Room([HostRoom(queues=frozenset("xy"), slots=1), HostRoom(queues=frozenset("x"), slots=1)])
    assert [room.take(queue) for queue in order] == [True, True]
    assert not room.take("x")
