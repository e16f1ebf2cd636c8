import pytest

from clouduploader.errors import MissingFileError
from clouduploader.jobs import list as jobs_list
from clouduploader.jobs.list import JobQuery
from clouduploader.model.job import JobState
from clouduploader.store.spool import Spool


@pytest.fixture
def filled(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "2", state=JobState.SUCCEEDED, user="ann", project="P:Q")
    make_job(jobs, "9", state=JobState.FAILED, target="directory")
    make_job(jobs, "10", state=JobState.UPLOADING)
    make_job(jobs, "11", state=JobState.SCHEDULED, user="ann")
    return jobs


def names(jobs, **query):
    return [entry.name for entry in jobs_list.list_jobs(jobs, JobQuery(**query)).entries]


def test_jobs_are_listed_by_number_newest_first(filled):
    listing = jobs_list.list_jobs(filled, JobQuery())
    assert listing.total == 4
    assert [(entry.name, entry.is_archived) for entry in listing.entries] == [
        ("11", False), ("10", False), ("9", True), ("2", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"users": ["ann"]}, ["11", "2"]),
        ({"users": ["ann", "tom"], "states": ["uploading", "succeeded"]}, ["10", "2"]),
        ({"targets": ["directory"]}, ["9"]),
        ({"projects": ["P:Q"]}, ["2"]),
        ({"projects": [""]}, []),
        ({"is_running": True}, ["11", "10"]),
        ({"is_running": True, "users": ["ann"]}, ["11"]),
    ],
)
def test_filters_let_through_what_matches_all_of_them(query, expected, filled):
    assert names(filled, **query) == expected


def test_job_that_is_being_archived_is_listed_once(filled, make_job):
    make_job(filled, "10", state=JobState.FAILED)
    assert names(filled) == ["11", "10", "9", "2"]


def test_damaged_jobs_do_not_hide_the_others(filled):
    (filled.directory / "12").write_bytes(b"<clouduploadjob")
    (filled.done_dir / "3").mkdir()
    entries = {entry.name: entry for entry in jobs_list.list_jobs(filled, JobQuery()).entries}
    assert list(entries) == ["12", "11", "10", "9", "3", "2"]
    assert entries["12"].job is None
    assert "is not XML" in entries["12"].damage
    assert "Is a directory" in entries["3"].damage
    assert (entries["12"].is_archived, entries["3"].is_archived) == (False, True)
    assert names(filled, users=["tom"]) == ["10", "9"]
    assert names(filled, is_running=True) == ["12", "11", "10"]


def test_jobs_that_change_while_they_are_listed_are_followed(filled, make_job):
    listing = jobs_list.list_jobs(filled, JobQuery())
    make_job(filled, "10", state=JobState.FAILED)
    filled.job_path("10").unlink()
    filled.done_path("2").unlink()
    assert [(entry.name, entry.is_archived) for entry in listing.entries] == [("11", False), ("10", True), ("9", True)]


def test_job_archived_meanwhile_is_not_running(filled, make_job):
    listing = jobs_list.list_jobs(filled, JobQuery(is_running=True))
    make_job(filled, "11", state=JobState.FAILED)
    filled.job_path("11").unlink()
    assert [entry.name for entry in listing.entries] == ["10"]


def test_only_what_is_taken_is_read(filled):
    listing = jobs_list.list_jobs(filled, JobQuery())
    assert next(listing.entries).name == "11"
    filled.job_path("10").write_bytes(b"")
    assert next(listing.entries).damage


def test_empty_and_missing_spools_differ(make_spool, tmp_path):
    assert names(make_spool()) == []
    with pytest.raises(MissingFileError):
        jobs_list.list_jobs(Spool(tmp_path / "none"), JobQuery())
