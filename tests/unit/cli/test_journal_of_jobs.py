"""What `inspect` and `kill` make of a job's journal."""

import json
import os
import time


def inspected(cloud, name="1"):
    done = cloud.run("inspect", name, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["data"]


def test_success_shows_its_objects_and_shortfalls(file_cloud):
    file_cloud.set("shortfall", "there")
    done = file_cloud.upload("--json")
    data = json.loads(done.stdout)["data"]
    assert data["shortfalls"] == [{"subject": "there", "reason": "it is on fire"}]
    assert "there: it is on fire" in done.stderr
    found = inspected(file_cloud)["journal"]
    assert (found["key"], found["state"], found["outcome"]) == (file_cloud.journal().key, "ended", "succeeded")
    assert found["objects"] == data["objects"]
    assert found["shortfalls"] == data["shortfalls"]
    shown = file_cloud.run("inspect", "1").stdout.splitlines()
    assert f"journal\t{found['key']} (ended)" in shown
    assert "shortfall\tthere: it is on fire" in shown
    assert [line for line in shown if line.startswith("object\timage image-")]


def test_dead_upload_is_resumable(dead):
    cloud = dead("made")
    found = inspected(cloud)["journal"]
    assert (found["state"], found["outcome"], found["asked"]) == ("resumable", None, [])
    assert [thing["id"] for thing in found["objects"]] == list(cloud.things())


def test_what_was_asked_for_is_shown(dead):
    assert inspected(dead("unreported snapshot"))["journal"]["asked"] == [{"kind": "snapshot", "region": "here"}]


def test_job_shows_its_own_tries_only(dead):
    cloud = dead("made")
    cloud.upload()
    assert inspected(cloud, "1")["journal"]["state"] == "resumable"
    assert inspected(cloud, "2")["journal"]["state"] == "ended"
    assert inspected(cloud, "1")["journal"]["key"] == inspected(cloud, "2")["journal"]["key"]


def test_job_without_a_journal_shows_none(dead):
    cloud = dead("made")
    (cloud.place / "spool" / "journal").rename(cloud.place / "lost")
    assert inspected(cloud)["journal"] is None


def test_forced_kill_removes_what_only_the_journal_or_the_tags_know(dead):
    cloud = dead("unreported snapshot")
    assert cloud.kinds() == ["snapshot"]
    done = cloud.run("kill", "-y", "--force", "1", "--json")
    assert done.returncode == 0, done.stderr
    (job,) = json.loads(done.stdout)["data"]["jobs"]
    assert [thing["kind"] for thing in job["removed"]] == ["snapshot"]
    assert cloud.things() == {}
    assert not cloud.journal().state.is_open


def test_forced_kill_removes_what_was_complete_too(dead):
    cloud = dead("complete")
    assert cloud.run("kill", "-y", "--force", "1").returncode == 0
    assert cloud.things() == {}


def test_forced_kill_removes_the_private_directory(dead, tmp_path_factory, monkeypatch):
    temporary = tmp_path_factory.mktemp("tmp")
    monkeypatch.setenv("TMPDIR", str(temporary))
    cloud = dead("made")
    (left,) = temporary.iterdir()
    assert cloud.journal().state.began["work_dir"] == str(left)
    cloud.run("kill", "-y", "--force", "1")
    assert list(temporary.iterdir()) == []


def test_forced_kill_that_leaves_something_can_be_made_up_for(dead):
    cloud = dead("made")
    cloud.set("stubborn", *cloud.things())
    assert cloud.run("kill", "-y", "--force", "1").returncode == 76
    assert cloud.journal().state.is_open
    cloud.set("stubborn")
    assert cloud.cleanup("--yes").returncode == 0
    assert cloud.things() == {}


def test_plain_kill_leaves_a_dead_journal_to_others(dead):
    cloud = dead("made")
    done = cloud.run("kill", "-y", "--wait", "1")
    assert done.returncode == 76
    assert "the uploader did not remove it" in done.stdout
    assert cloud.journal().state.is_open
    assert cloud.run("resume", "1").returncode == 0
    assert cloud.kinds() == ["image", "snapshot"]


def test_live_upload_is_shown_as_such(file_cloud, tmp_path):
    fifo = tmp_path / "a.fifo"
    os.mkfifo(fifo)
    (file_cloud.directory / "wait").symlink_to(fifo)
    child = file_cloud.start_upload()
    try:
        while not (file_cloud.place / "spool" / "journal").exists() or not file_cloud.kinds():
            assert child.poll() is None
            time.sleep(0.02)
        assert inspected(file_cloud)["journal"]["state"] == "live"
        assert file_cloud.cleanup("--yes", "--region", "here", "--older-than", "0").stderr == "Nothing is left.\n"
        second = file_cloud.upload()
        assert second.returncode == 75
        assert "the same upload is under way already, or is being cleaned up: the job 1" in second.stderr
        assert file_cloud.run("resume", "1").returncode == 75
    finally:
        fifo.write_text("")  # lets it go on
        child.communicate(timeout=60)
    assert child.returncode == 0
    assert file_cloud.kinds() == ["image", "snapshot"]


def test_upload_that_is_killed_while_it_is_resumed_can_be_resumed_again(dead):
    cloud = dead("made")
    cloud.set("crash", "complete")
    assert cloud.run("resume", "1").returncode == -9
    cloud.set("crash")
    assert cloud.run("resume", "1").returncode == 0
    assert cloud.kinds() == ["image", "snapshot"]
