import pytest

from clouduploader.store.spool import paths


@pytest.mark.parametrize(
    ("name", "job"), [("42.file", "42"), ("1.file", "1"), ("a.file", None), ("42.file.x", None), (".42.file7", None)]
)
def test_job_of_an_image_is_told_by_its_name(tmp_path, name, job):
    assert paths.job_of_image(tmp_path / name) == (job and (tmp_path, job))


@pytest.mark.parametrize(("name", "job"), [("42.log", "42"), ("a.log", None), (".42.log.4711", None)])
def test_job_of_a_log_is_told_by_its_name(tmp_path, name, job):
    assert paths.job_of_log(tmp_path / name) == job


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("7.data", "7"),
        ("7.file", "7"),
        (".7.file4711", "7"),
        (".7.new", "7"),
        (".7.data.new", "7"),
        (".next.new.4711", "next"),
        (".next.new.k3_x", "next"),
        (".7.lease", "7"),
        ("..7.lease.new", "7"),
        ("7.lease", None),
        ("7", None),
        ("7.log", None),
        ("7.result", None),
        (".7.dir", None),
        (".7.cleanup", None),
        ("next", None),
        ("x.data", None),
        ("0123456789012345678.data", None),
    ],
)
def test_job_of_a_part_is_told_by_its_name(name, job):
    assert paths.job_of_part(name) == job


def test_cleanups_that_are_pending_are_those_of_jobs(tmp_path):
    for name in (".7.cleanup", ".08.cleanup", ".x.cleanup", "9.cleanup", ".10.cleanup.new"):
        (tmp_path / name).touch()
    assert sorted(paths.SpoolPaths(tmp_path).pending_cleanups()) == ["08", "7"]


def test_leases_are_those_of_jobs(tmp_path):
    for name in (".7.lease", ".x.lease", "9.lease", "..10.lease.new"):
        (tmp_path / name).touch()
    assert paths.SpoolPaths(tmp_path).leased_names() == ["7"]
