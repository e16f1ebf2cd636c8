import fcntl
import getpass
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clouduploader.model import job_xml
from clouduploader.model.job import JobState

YEAR_SECONDS = 365 * 86_400


@pytest.fixture
def images(file_cloud):
    """The directory of the target `directory`."""
    path = file_cloud.place / "images"
    path.mkdir()
    with (file_cloud.place / "home" / "clouduploader.conf").open("a") as file:
        file.write(f"[directory]\npath = {path}\n")
    return path


def lose_journals(cloud):
    (cloud.place / "spool" / "journal").rename(cloud.place / "lost")


def things(done):
    return json.loads(done.stdout)["data"]["things"]


def test_nothing_is_left_and_nothing_happens(file_cloud):
    done = file_cloud.cleanup()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "Nothing is left.\n")


@pytest.mark.parametrize("point", ["unreported snapshot", "made"])
def test_leftover_of_a_dead_upload_is_removed_by_its_journal(dead, point):
    cloud = dead(point)
    done = cloud.cleanup("--yes")
    assert done.returncode == 0, done.stderr
    columns, row = (line.split("\t") for line in done.stdout.splitlines())
    assert columns == ["kind", "id", "region", "job", "user", "image", "age", "what happened"]
    assert (row[0], *row[2:6], row[7]) == ("snapshot", "here", "1", getpass.getuser(), "a.raw", "its upload died")
    assert row[6].endswith("s")
    assert done.stderr == f"Removed snapshot {row[1]} in here.\nRemoved 1 thing.\n"
    assert cloud.things() == {}
    journal = cloud.journal()
    assert not journal.state.is_open
    assert journal.state.end["outcome"] == "cleaned"
    assert journal.targetdata() is not None, "it can be run again"
    assert cloud.cleanup("--yes").stderr == "Nothing is left.\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--target", "ec3"], 69, "no platform answers to the target 'ec3'"),
        (["--target", "ec2", "--region", "eu-west-1", "--region", "x y"], 65, '--region is "x y", but takes'),
        (["--target", "ec2", "--arn", "x"], 65, '--arn is "x", but takes values such as arn:'),
    ],
)
def test_wrong_option_is_named(file_cloud, words, code, message):
    done = file_cloud.run("cleanup", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_what_was_asked_for_and_may_show_yet_is_left_for_another_clean_up(dead):
    cloud = dead("asked snapshot")
    done = cloud.cleanup("--yes")
    assert done.returncode == 75
    assert "snapshot\t\there\t1\t" in done.stdout
    assert "clouduploader: left snapshot of unknown id in here: not visible yet: " in done.stderr
    assert cloud.journal().state.is_open
    (thing,) = things(cloud.cleanup("--yes", "--json"))
    assert (thing["id"], thing["outcome"]) == (None, "left")
    assert thing["reason"].startswith("not visible yet: the cloud may show it within ")
    (thing,) = things(cloud.cleanup("--dry-run", "--json"))
    assert (thing["id"], thing["outcome"]) == (None, "found")
    cloud.age(120)
    assert cloud.cleanup("--yes").returncode == 0
    assert not cloud.journal().state.is_open


def test_what_shows_late_is_removed_by_a_later_clean_up(dead):
    cloud = dead("unreported snapshot")
    cloud.set("hidden", *cloud.things())
    assert cloud.cleanup("--yes").returncode == 75
    cloud.set("hidden")
    done = cloud.cleanup("--yes")
    assert (done.returncode, cloud.things()) == (0, {})
    assert not cloud.journal().state.is_open


def test_what_was_made_and_does_not_show_is_gone_once_it_would(dead):
    cloud = dead("made")
    (snapshot,) = cloud.things()
    cloud.set("hidden", snapshot)
    done = cloud.cleanup("--yes")
    assert done.returncode == 75
    assert f"left snapshot {snapshot} in here: not visible yet: " in done.stderr
    cloud.age(60)
    assert cloud.cleanup("--yes").returncode == 75
    assert cloud.journal().state.is_open
    cloud.age(60)
    done = cloud.cleanup("--yes")
    assert (done.returncode, done.stderr) == (0, f"Removed snapshot {snapshot} in here.\nRemoved 1 thing.\n")
    assert not cloud.journal().state.is_open


def test_dry_run_changes_nothing(dead):
    cloud = dead("made")
    before = cloud.things(), cloud.journal()
    done = cloud.cleanup("--dry-run")
    assert (done.returncode, done.stdout.count("\n")) == (0, 2)
    assert (cloud.things(), cloud.journal()) == before
    (thing,) = things(cloud.cleanup("--dry-run", "--json"))
    assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", thing.pop("created"))
    assert thing == {
        "kind": "snapshot", "id": next(iter(before[0])), "region": "here", "job": "1",
        "user": getpass.getuser(), "image": "a.raw", "journal": before[1].key,
        "story": "its upload died", "outcome": "found", "reason": None,
    }  # fmt: skip


def test_nobody_who_could_agree_is_an_error(dead):
    cloud = dead("made")
    done = cloud.cleanup()
    assert done.returncode == 64
    assert "Remove this thing? There is no terminal to answer on." in done.stderr
    assert cloud.kinds() == ["snapshot"]


def test_answer_no_leaves_all(dead):
    cloud = dead("made")
    leader, follower = pty.openpty()
    executable = Path(sys.executable).with_name("clouduploader")
    words = ["--home", cloud.place / "home", "--spool", cloud.place / "spool", "cleanup", "--target", "file-cloud"]
    os.write(leader, b"n\n")
    done = subprocess.run([executable, *words], stdin=follower, capture_output=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(cloud._site)})  # fmt: skip
    os.close(leader)
    os.close(follower)
    assert done.returncode == 130
    assert cloud.kinds() == ["snapshot"]


def test_complete_snapshot_is_kept_and_shown(dead):
    cloud = dead("complete")
    done = cloud.cleanup("--yes")
    assert done.returncode == 0
    assert "its upload died; kept: complete; `clouduploader resume 1` goes on with it" in done.stdout
    assert cloud.kinds() == ["snapshot"]
    assert cloud.journal().state.is_open
    assert cloud.run("resume", "1").returncode == 0


def test_snapshot_that_may_be_being_completed_is_kept(dead):
    cloud = dead("sealing")
    done = cloud.cleanup("--yes")
    assert done.returncode == 0
    assert "kept: it may be being completed; `clouduploader resume 1` goes on with it" in done.stdout
    assert cloud.kinds() == ["snapshot"]
    assert cloud.journal().state.is_open
    assert cloud.run("resume", "1").returncode == 0


@pytest.mark.parametrize("point", ["sealing", "complete"])
def test_complete_snapshot_is_removed_if_that_is_asked_for(dead, point):
    cloud = dead(point)
    (thing,) = things(cloud.cleanup("--yes", "--completed", "--json"))
    assert (thing["outcome"], thing["reason"]) == ("removed", None)
    assert cloud.things() == {}
    assert not cloud.journal().state.is_open


@pytest.mark.parametrize("words", [(), ("--completed",)])
def test_image_is_never_removed(dead, words):
    cloud = dead("registered")
    found = things(cloud.cleanup("--yes", "--json", *words))
    assert {thing["outcome"] for thing in found} == {"kept"}
    assert cloud.kinds() == ["image", "snapshot"]


def test_success_is_not_touched_by_the_death_of_a_later_try(file_cloud):
    file_cloud.upload()
    before = file_cloud.things()
    file_cloud.set("crash", "made")
    file_cloud.upload()
    assert len(file_cloud.things()) == 3
    (thing,) = things(file_cloud.cleanup("--yes", "--json", "--completed", "--region", "here", "--older-than", "0"))
    assert thing["outcome"] == "removed"
    assert file_cloud.things() == before


def test_live_upload_is_not_touched(dead):
    cloud = dead("made")
    with (cloud.journal().directory / "journal").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = cloud.cleanup("--yes", "--region", "here", "--older-than", "0")
    assert (done.returncode, done.stderr) == (0, "Nothing is left.\n")
    assert cloud.kinds() == ["snapshot"]


def test_clean_up_of_a_job_whose_upload_lives_is_not_done(dead):
    cloud = dead("made")
    with (cloud.journal().directory / "journal").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = cloud.cleanup("--yes", "--job", "1")
    assert done.returncode == 75
    assert "its upload lives, or is being cleaned up" in done.stderr
    assert cloud.kinds() == ["snapshot"]
    assert cloud.cleanup("--yes", "--job", "1").returncode == 0
    assert cloud.kinds() == []


def test_lost_journal_is_made_up_for_by_tags(dead):
    cloud = dead("made")
    lose_journals(cloud)
    assert cloud.cleanup("--yes").stderr == "Nothing is left.\n"
    assert cloud.cleanup("--yes", "--region", "here").stderr == "Nothing is left.\n"  # it may live on another machine
    done = cloud.cleanup("--yes", "--region", "here", "--older-than", "0")
    assert "its journal is not here" in done.stdout
    assert done.returncode == 0
    assert cloud.things() == {}
    assert not (cloud.place / "spool" / "journal").exists()


def test_regions_limit_what_is_looked_for(dead):
    cloud = dead("made")
    assert cloud.cleanup("--yes", "--region", "there", "--older-than", "0").stderr == "Nothing is left.\n"
    assert cloud.kinds() == ["snapshot"]
    assert cloud.journal().state.is_open
    lose_journals(cloud)
    done = cloud.cleanup("--yes", "--region", "there", "--region", "here", "--older-than", "0s")
    assert done.returncode == 0
    assert cloud.things() == {}


def test_younger_ones_are_left_alone(dead):
    cloud = dead("made")
    assert cloud.cleanup("--yes", "--older-than", "2h", "--region", "here").stderr == "Nothing is left.\n"
    assert cloud.kinds() == ["snapshot"]


@pytest.mark.parametrize("seconds", [50 * YEAR_SECONDS, -50 * YEAR_SECONDS])
def test_age_that_the_clock_cannot_tell_is_no_reason_to_remove(dead, seconds):
    """As after a start without a battery, or beside a machine whose clock is ahead."""
    cloud = dead("made")
    cloud.age(seconds)
    done = cloud.cleanup("--yes", "--older-than", "2h")
    assert done.returncode == 78
    assert "how old things are can't be told: one is of " in done.stderr
    assert cloud.kinds() == ["snapshot"]
    assert cloud.cleanup("--yes").returncode == 0  # of any age: no clock decides
    assert cloud.things() == {}


@pytest.mark.parametrize(
    "words", [("--target", "directory"), ("--region", "eu-west-1", "--job", "1", "--target", "ec2")]
)
def test_other_targets_than_the_named_one_are_left_alone(dead, images, words):
    cloud = dead("made")
    assert cloud.run("cleanup", "--yes", *words).stderr == "Nothing is left.\n"
    assert cloud.journal().state.is_open
    assert list(images.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("--job", "1")])
def test_journals_name_their_own_targets(dead, words):
    cloud = dead("made")
    done = cloud.run("cleanup", "--yes", *words)
    assert (done.returncode, "Removed 1 thing.\n" in done.stderr) == (0, True)
    assert cloud.things() == {}


def test_journal_whose_platform_is_not_installed_any_more_is_told(dead):
    cloud = dead("made")
    path = cloud.journal().directory / "journal"
    path.write_text(path.read_text().replace('"file-cloud"', '"gone-cloud"'))
    done = cloud.run("cleanup", "--yes")
    assert done.returncode == 75
    assert "no platform answers to the target 'gone-cloud'" in done.stderr
    assert cloud.journal().state.is_open


def test_lost_journal_is_made_up_for_by_names_where_there_are_neither_accounts_nor_regions(dead, images):
    cloud, partial = dead("made"), images / f".clouduploader-{'a' * 32}-01234567.part"
    partial.touch()
    done = cloud.run("cleanup", "--yes", "--target", "directory")
    assert done.stderr == "Nothing is left.\n", "it may live on another machine"
    done = cloud.run("cleanup", "--yes", "--target", "directory", "--older-than", "0")
    assert (done.returncode, "its journal is not here" in done.stdout) == (0, True)
    assert list(images.iterdir()) == []


def test_what_cannot_be_removed_is_told_and_tried_again(dead):
    cloud = dead("made")
    (snapshot,) = cloud.things()
    cloud.set("stubborn", snapshot)
    done = cloud.cleanup("--yes")
    assert done.returncode == 75
    assert f"left snapshot {snapshot} in here: it is in use" in done.stderr
    assert cloud.journal().state.is_open
    (thing,) = things(cloud.cleanup("--yes", "--json"))
    assert (thing["outcome"], thing["reason"]) == ("left", "it is in use")
    cloud.set("stubborn")
    assert cloud.cleanup("--yes").returncode == 0
    assert not cloud.journal().state.is_open


def test_what_shows_after_its_journal_was_closed_is_tried_again_too(dead):
    cloud = dead("unreported snapshot")
    (snapshot,) = cloud.things()
    cloud.set("hidden", snapshot)
    cloud.age(120)
    assert cloud.cleanup("--yes").returncode == 0
    (cloud.journal().directory / "targetdata").unlink()  # as after some days, or that of a job of a build service
    cloud.set("hidden")
    cloud.set("stubborn", snapshot)
    words = ("--yes", "--region", "here", "--older-than", "0")
    for _ in range(2):
        done = cloud.cleanup(*words)
        assert (done.returncode, f"left snapshot {snapshot} in here: it is in use" in done.stderr) == (75, True)
    cloud.set("stubborn")
    assert (cloud.cleanup(*words).returncode, cloud.things()) == (0, {})
    assert cloud.cleanup(*words).stderr == "Nothing is left.\n"


def test_account_that_is_closed_to_us_is_told(dead):
    cloud = dead("made")
    cloud.set("locked-out", "yes")
    done = cloud.cleanup("--yes")
    assert done.returncode == 75
    assert "the role is gone" in done.stderr
    assert cloud.journal().state.is_open
    assert cloud.cleanup("--yes", "--region", "here").returncode == 77


def test_target_data_that_are_gone_can_be_given(dead):
    cloud = dead("made")
    (cloud.journal().directory / "targetdata").unlink()
    done = cloud.cleanup("--yes")
    assert done.returncode == 75
    assert "are gone" in done.stderr
    (cloud.place / "data").write_text('{"region": "here"}')
    assert cloud.cleanup("--yes", "--data", cloud.place / "data").returncode == 0
    assert cloud.things() == {}


def test_secret_of_the_kept_target_data_is_never_shown(dead):
    cloud = dead("made")
    (cloud.journal().directory / "targetdata").write_text('{"region": "here", "password": "open sesame"}')
    done = cloud.cleanup("--yes", "--verbose", "--json")
    assert "sesame" not in done.stdout + done.stderr


@pytest.mark.parametrize("age", ["x", "1y", "-1h", "1.5h", "", "1 h"])
def test_age_that_is_none_is_refused(file_cloud, age):
    done = file_cloud.cleanup("--older-than", age)
    assert done.returncode == 64
    assert "is no span of time such as 90m, 12h or 2d" in done.stderr


def test_cleaned_job_that_is_still_in_the_spool_can_begin_anew(dead):
    cloud = dead("made")
    cloud.cleanup("--yes")
    done = cloud.run("resume", "1")  # its record is still in the spool, and so are its target data
    assert done.returncode == 0
    job = job_xml.parse((cloud.place / "spool" / "done" / "1").read_bytes())
    assert job.state is JobState.SUCCEEDED


def test_job_limits_it_to_what_its_upload_left(dead):
    cloud = dead("made")
    for words in (("--job", "2"), ("--job", "2", "--region", "here")):
        done = cloud.cleanup("--yes", *words)
        assert (done.returncode, done.stderr) == (0, "Nothing is left.\n")
    assert cloud.kinds() == ["snapshot"]
    assert cloud.cleanup("--yes", "--job", "1").returncode == 0
    assert cloud.things() == {}


def test_job_of_a_target_that_is_not_there_left_nothing(file_cloud):
    done = file_cloud.run("cleanup", "--target", "nowhere", "--job", "7", "--yes")
    assert (done.returncode, done.stdout) == (0, "")
    assert file_cloud.run("cleanup", "--target", "nowhere", "--yes").returncode == 69
