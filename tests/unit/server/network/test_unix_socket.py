"""The Unix socket: who asks over it, what lies in its place, and the client."""

import grp
import json
import os
import pwd
import re
import socket
import stat
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import pytest
from fakes.waiting import wait_for

from clouduploader import client as client_module
from clouduploader.cli import main
from clouduploader.errors import ConfigError, NetworkError, UnavailableError
from clouduploader.model.job import JobState
from clouduploader.server import access, settings
from clouduploader.server.access import Kind, Principal
from clouduploader.server.network import origin, unix_socket
from clouduploader.store import config
from clouduploader.store.tokens import Role

ME = pwd.getpwuid(os.geteuid()).pw_name
DAEMON = pwd.getpwnam("daemon")  # a user of every Linux (LSB); with a group of its own


@pytest.fixture
def server(serve, make_spool, make_job, tmp_path):
    """A server that listens on a socket alone, with a job of tom's."""
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED, user="tom", log=b"tom's log")
    return serve(jobs, listen="none", socket=str(tmp_path / "socket"))


# --- who asks


def test_user_of_the_service_is_an_admin(server):
    status, _, body = server.ask("GET", "/cloudupload/1")
    assert (status, b"tom" in body) == ("200 OK", True)
    assert json.loads(server.ask("GET", "/api/v1/me")[2])["kind"] == "admin"
    line = re.findall(r"event=request (.*) seconds", server.log.getvalue())[0]
    assert line == f'job=1 client="uid {os.geteuid()}" role=admin user={ME} method=GET path=/cloudupload/1 status=200'
    assert f"(uid {os.geteuid()})" in server.ask("GET", "/serverstatus")[2].decode()


def test_name_in_a_request_does_not_matter_where_users_sign_in_by_tcp(serve, make_spool, tmp_path):
    server = serve(make_spool(), listen="none", socket=str(tmp_path / "socket"), sign_in="token")
    assert server.ask("GET", "/cloudupload")[0] == "200 OK"


def test_image_comes_over_the_socket(server):
    name = server.create(size=5, target="directory")
    assert server.ask("PUT", f"/cloudupload/{name}", b"image")[0] == "200 OK"
    assert b"<state>scheduled</state>" in server.ask("GET", f"/cloudupload/{name}")[2]


ASK = """
import os, socket, sys
os.setresuid(*[int(sys.argv[1])] * 3)
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[2])
    client.sendall(b"GET %b HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" % sys.argv[3].encode())
    print(b"".join(iter(lambda: client.recv(65_536), b"")).decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_other_user_is_a_stranger_or_by_the_group_a_user(serve, make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED, user="tom")
    make_job(jobs, "2", state=JobState.FAILED, user=DAEMON.pw_name)
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # which the other user can reach
        Path(place).chmod(0o755)
        server = serve(jobs, listen="none", socket=f"{place}/socket")

        def ask(target):
            words = [sys.executable, "-I", "-c", ASK, str(DAEMON.pw_uid), f"{place}/socket", target]
            return subprocess.check_output(words, text=True)

        assert ask("/cloudupload").startswith("HTTP/1.1 401 ")
        assert ask("/").startswith("HTTP/1.1 200 ")
        server.section.update(socket_group=grp.getgrgid(DAEMON.pw_gid).gr_name)
        server.source.request_reload()
        wait_for(lambda: "were read again" in server.log.getvalue())
        assert re.findall(r'name="(\d+)"', ask("/cloudupload")) == ["2"]
        assert ask("/cloudupload/1").startswith("HTTP/1.1 404 ")


@pytest.mark.parametrize(
    ("uid", "gid", "principal"),
    [(0, None, Principal(Kind.ADMIN, "root")), (os.geteuid(), None, Principal(Kind.ADMIN, ME)),
     (DAEMON.pw_uid, None, Principal(Kind.STRANGER)), (DAEMON.pw_uid, DAEMON.pw_gid, Principal(Kind.USER, "daemon")),
     (DAEMON.pw_uid, DAEMON.pw_gid + 1, Principal(Kind.STRANGER)),
     (4_000_000_000, DAEMON.pw_gid, Principal(Kind.STRANGER))],
)  # fmt: skip
def test_kernel_tells_who_asks(uid, gid, principal):
    assert access._local(uid, gid) == principal


def test_no_header_makes_a_local_user_another(server):
    for headers in ({"X_Forwarded_For": "127.0.0.1"}, {"X_Forwarded_Proto": "https"}):
        _, lines, _ = server.ask("GET", "/ui", **headers)
        assert not [line for line in lines if line.startswith("Strict-Transport-Security")]
    assert set(re.findall(r'client="(.*?)"', server.log.getvalue())) == {f"uid {os.geteuid()}"}


@pytest.mark.parametrize("header", ["X_Forwarded_For", "Forwarded", "Via", "X_Real_IP"])
def test_request_that_a_proxy_passes_on_is_a_strangers(server, header):
    assert server.ask("GET", "/cloudupload/1", **{header: "for=192.0.2.1"})[0].startswith("401 ")


def test_token_counts_over_the_socket_too(server, tmp_path):
    from clouduploader.admin import tokens

    loaded = config.load(home=tmp_path / "etc" / "cloudupload", spool=tmp_path, environment={})
    _, text = tokens.create(loaded, "anna", Role.USER, note="", lifetime=None)
    assert server.ask("GET", "/cloudupload/1", Authorization=f"Bearer {text}")[0].startswith("404 ")
    assert server.ask("GET", "/cloudupload/1", Authorization="Bearer x")[0].startswith("401 ")


def test_both_ways_lead_to_the_same_jobs(serve, make_spool, tmp_path):
    server = serve(make_spool(), socket=str(tmp_path / "socket"), allow="127.0.0.1")
    name = server.create()
    roles = [json.loads(server.ask("GET", "/api/v1/me")[2])["kind"]]
    server.address = str(tmp_path / "socket")
    assert server.ask("GET", f"/cloudupload/{name}")[0] == "200 OK"
    roles.append(json.loads(server.ask("GET", "/api/v1/me")[2])["kind"])
    assert roles == ["backend", "admin"]


def test_sign_in_asks_for_no_name_over_the_socket(serve, make_spool, tmp_path):
    """A client of a socket knows no name of the service."""
    server = serve(make_spool(), listen="none", socket=str(tmp_path / "socket"), sign_in="token", hosts="a.example.org")
    assert server.ask("GET", "/cloudupload")[0] == "200 OK"


# --- its place


def test_socket_is_open_to_all_and_removed_in_the_end(tmp_path):
    path = tmp_path / "socket"
    with unix_socket.listen(path, backlog=1):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert list(tmp_path.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == []


def test_socket_of_a_crash_is_replaced(tmp_path):
    for name in ("socket", ".socket.new"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / name))
    with unix_socket.listen(tmp_path / "socket", backlog=1) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "socket"))
        with listener.accept()[0] as accepted:
            assert unix_socket.peer_uid(accepted) == os.geteuid()


def test_socket_of_another_server_stays(tmp_path):
    path = tmp_path / "socket"
    with unix_socket.listen(path, backlog=1):
        with pytest.raises(UnavailableError, match="Address already in use"), unix_socket.listen(path, backlog=1):
            pass
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_stays(tmp_path, kind):
    path = tmp_path / "socket"
    path.touch() if kind == "file" else path.mkdir() if kind == "directory" else path.symlink_to(tmp_path / "x")
    with pytest.raises(UnavailableError, match="is not a socket"), unix_socket.listen(path, backlog=1):
        pass
    assert path.is_symlink() or path.exists()


@pytest.mark.parametrize("name", ["no/socket", "a" * 200])
def test_place_that_can_not_be_is_told(tmp_path, name):
    with pytest.raises(UnavailableError, match="can't be listened on"), unix_socket.listen(tmp_path / name, backlog=1):
        pass


def test_another_servers_socket_is_not_removed_in_the_end(tmp_path):
    path = tmp_path / "socket"
    with unix_socket.listen(path, backlog=1):
        path.unlink()
        path.touch()
    assert path.exists()


@pytest.mark.parametrize(
    ("section", "message"),
    [({"listen": "none"}, "it is to listen nowhere"), ({"socket": "run/socket"}, "not an absolute path"),
     ({"socket": "/s", "socket_group": "no-such-group"}, "there is no such group")],
)  # fmt: skip
def test_settings_of_the_socket_are_checked(section, message):
    with pytest.raises(ConfigError, match=message):
        settings.load(section, "clouduploader.conf")


def test_reload_does_not_move_the_socket(server):
    server.section.update(socket="/elsewhere")
    server.source.request_reload()
    wait_for(lambda: "until it is restarted" in server.log.getvalue())
    assert f"but it listens on unix:{server.address} until it is restarted" in server.log.getvalue()
    assert server.ask("GET", "/")[0] == "200 OK"


def test_origin_over_tcp_has_no_uid():
    with socket.socket() as sock:
        assert unix_socket.peer_uid(sock) is None
    known = {"socket": types.SimpleNamespace(family=socket.AF_INET)}
    transport = types.SimpleNamespace(get_extra_info=lambda name, default=None: known.get(name, default))
    request = types.SimpleNamespace(transport=transport, remote="192.0.2.1", secure=False, headers={})
    assert origin.find(request, settings.load({}, "clouduploader.conf")).uid is None


# --- the client


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_client_asks_over_the_socket(server, form):
    known = client_module.JobServer(form.format(server.address))
    assert known.url == f"unix:{server.address}"
    assert known.read("1").user == "tom"
    assert known.is_private
    assert known.keeps_accounts


def test_commands_take_a_socket_as_their_server(server, home, capsys, tmp_path):
    (tmp_path / "a.raw").write_bytes(b"image")
    words = ["--server", f"unix:{server.address}"]
    assert main.main(["--home", str(home), "submit", str(tmp_path / "a.raw"), "--target", "directory", *words]) == 0
    name = capsys.readouterr().out.strip()
    assert main.main(["--home", str(home), "list", *words]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} >= {"1", name}


def test_socket_that_is_not_there_is_told(tmp_path):
    with pytest.raises(NetworkError, match=f"unix:{tmp_path}/no can't be reached, or hung up: No such file") as caught:
        client_module.JobServer(f"unix:{tmp_path}/no").read("1")
    assert caught.value.hint is None
