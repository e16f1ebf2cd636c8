"""The health of the service, asked over HTTP."""

import fcntl
import json

from clouduploader import client as client_module


def test_health_is_good_only_with_spool_room_and_worker(serve, make_spool):
    jobs = make_spool()
    server = serve(jobs, keep_free="1")
    status, headers, body = server.ask("GET", "/healthz")
    assert status.startswith("503")
    assert "Content-Type: application/json" in headers
    checks = json.loads(body)["checks"]
    assert (checks["spool"], checks["disk"]) == ("ok", "ok")
    assert checks["worker"] == "no worker looks after the spool"
    assert list(jobs.directory.iterdir()) == []


def test_health_tells_of_a_full_disk_and_a_lost_spool(serve, make_spool):
    jobs = make_spool()
    server = serve(jobs, keep_free="1000000T")
    assert "are to be kept free" in json.loads(server.ask("GET", "/healthz")[2])["checks"]["disk"]
    jobs.directory.rename(jobs.directory.with_name("elsewhere"))
    checks = json.loads(server.ask("GET", "/healthz")[2])["checks"]
    assert checks["spool"] == "cloudupload can't be written: No such file or directory"


def test_worker_of_obs_is_found_where_the_settings_say(make_spool, serve, tmp_path):
    jobs = make_spool()
    home = tmp_path / "etc" / "cloudupload"
    home.mkdir(parents=True)
    (home / "clouduploader.conf").write_text(f"[worker]\nobs_lock = {tmp_path}/elsewhere.lock\n")
    server = serve(jobs)
    client = client_module.JobServer("http://{}:{}".format(*server.address))
    assert b'type="clouduploadworker" state="dead"' in server.ask("GET", "/workerstatus")[2]
    assert not client.has_worker()
    with (tmp_path / "elsewhere.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert b'type="clouduploadworker" state="running"' in server.ask("GET", "/workerstatus")[2]
        assert client.has_worker()
        assert json.loads(server.ask("GET", "/healthz")[2])["checks"]["worker"] == "ok"
