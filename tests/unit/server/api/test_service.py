"""What administrators see of the service by the API."""

import datetime

from clouduploader.model.job import JobState
from clouduploader.store.accounts import AccountStore
from clouduploader.store.images import ImageStore

NOW = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC)


def test_administrator_sees_how_the_service_is(ask_as, make_job):
    make_job(ask_as.jobs, "1", state=JobState.SCHEDULED)
    make_job(ask_as.jobs, "2", state=JobState.SCHEDULED)
    make_job(ask_as.jobs, "3", state=JobState.FAILED)
    (ask_as.jobs.directory / "4").write_text("<")
    status, found = ask_as("root", "GET", "/service")
    assert (status, found["queue"], found["images"], found["receiving"]) == (200, {"scheduled": 2, "damaged": 1}, 0, 0)
    assert (found["worker"], found["cluster"]) == ("no worker looks after the spool", False)
    assert found["disk"]["free_bytes"] > 0
    assert {"clouduploader", "python", "aiohttp"} <= found["versions"].keys()
    assert str(ask_as.jobs.directory) not in str(found)
    assert ask_as("tom", "GET", "/service")[0] == 403


def test_administrator_sees_the_users(ask_as, make_job, home):
    make_job(ask_as.jobs, "1", state=JobState.SCHEDULED, user="tom", size=3)
    make_job(ask_as.jobs, "2", state=JobState.FAILED, user="tom", size=3)
    ImageStore(ask_as.jobs.directory).create("tom", 4, metadata={}, now=NOW)
    AccountStore(home).create("anna", "azure", {}, now=NOW)
    ask_as("tom", "GET", "/me")
    users = {one["name"]: one for one in ask_as("root", "GET", "/users")[1]["users"]}
    assert users["tom"] == {"name": "tom", "tokens": 1, "accounts": 0, "jobs": 1, "bytes": 7}
    assert users["anna"] == {"name": "anna", "tokens": 0, "accounts": 1, "jobs": 0, "bytes": 0}
    assert list(users) == ["anna", "root", "tom"]
