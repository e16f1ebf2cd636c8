"""Signing in and out as a browser does it, and what its cookie is worth."""

import datetime
import json
import os
import re
import time
import urllib.parse

import jwt
import pytest
from fakes import openid_provider

from clouduploader.model.job import JobState
from clouduploader.server.signin import sessions
from clouduploader.store.tokens import Role, TokenStore

HOST = "upload.example.org"
ORIGIN = f"http://{HOST}"
SETTINGS = {"sign_in": "token", "hosts": f"{HOST} [::1]", "allow": "127.0.0.1", "clients": "127.0.0.0/8"}
NAVIGATION = {"Accept": "text/html,*/*", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Site": "none"}


class Visitor:
    """A browser that keeps its cookies."""

    def __init__(self, server):
        self.server, self.cookies, self.csrf, self.attributes = server, {}, None, {}

    def ask(self, method, path, body=None, *, host=HOST, **headers):
        headers = {"Host": host, **headers}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        answer = self.server.send("\r\n".join([*lines, "", ""]).encode(errors="surrogateescape") + (body or b""))
        head, _, content = answer.partition(b"\r\n\r\n")
        status, *found = head.decode().split("\r\n")
        for line in found:
            if line.startswith("Set-Cookie: "):
                pair, *attributes = line.removeprefix("Set-Cookie: ").split("; ")
                name, _, value = pair.partition("=")
                self.attributes[name] = set(attributes)
                if "Max-Age=0" in attributes:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = value
        return int(status.split()[1]), dict(line.split(": ", 1) for line in found), content

    def go(self, path, **headers):
        """Open a page, and return where it leads and its status."""
        status, found, _ = self.ask("GET", path, **NAVIGATION, **headers)
        return status, found.get("Location")

    def fetch(self, method, path, document=None, **headers):
        """Ask as the script of the page does."""
        origin = {"Origin": ORIGIN} if method != "GET" else {}
        known = {"X_CSRF_Token": self.csrf} if self.csrf and method != "GET" else {}
        body = None if document is None else json.dumps(document).encode()
        given = {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors", **origin, **known, **headers}
        return self.ask(method, path, body, **given)

    def me(self):
        found = json.loads(self.fetch("GET", "/ui/session")[2])
        self.csrf = found["csrf"]
        return found["role"], found["user"]

    def sign_in(self, token):
        status, _, body = self.fetch("POST", "/ui/sign-in", {"token": token})
        if status == 200:
            self.me()
        return status, body


@pytest.fixture
def jobs(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.CREATED, user="tom")
    make_job(jobs, "2", state=JobState.CREATED, user="anna")
    return jobs


@pytest.fixture
def tokens(tmp_path):
    home = tmp_path / "etc" / "cloudupload"
    home.mkdir(parents=True)
    return TokenStore(home)


@pytest.fixture
def make_token(tokens):
    def make(user="tom", role=Role.USER, *, seconds=None):
        now = datetime.datetime.now(datetime.UTC)
        expires = None if seconds is None else now + datetime.timedelta(seconds=seconds)
        return tokens.create(user, role, note="", expires=expires, now=now)[1]

    return make


@pytest.fixture
def server(serve, jobs, tokens):
    """A server with sign-in, whose clients are strangers."""
    made = serve(jobs, **SETTINGS)
    made.source_address = ("127.0.0.2", 0)
    return made


@pytest.fixture
def tom(server, make_token):
    """A visitor who has signed in."""
    made = Visitor(server)
    assert made.sign_in(make_token()) == (200, b'{"user": "tom", "role": "user"}')
    return made


def forged(server, key=None, **changes):
    """A cookie like that of a session."""
    now = int(time.time())
    document = {"jti": "x" * 22, "sub": "root", "role": "admin", "way": "openid", "token": None, "began": now,
                "used": now, "aud": "session", **changes}  # fmt: skip
    return jwt.encode(document, key or "k" * 64, algorithm="HS256")


def key_of(jobs):
    return (jobs.directory / ".sessions" / "key").read_bytes()


# --- by token


def test_user_is_who_the_token_says(tom):
    assert tom.me() == ("user", "tom")
    assert tom.go("/ui") == (200, None)
    assert [job["id"] for job in json.loads(tom.fetch("GET", "/api/v1/jobs")[2])["jobs"]] == ["1"]
    assert tom.fetch("GET", "/api/v1/jobs/2")[0] == 404
    assert tom.attributes["clouduploader"] == {"HttpOnly", "Path=/", "SameSite=Lax"}
    assert re.search("event=signed-in client=127.0.0.2 user=tom role=user way=token token=", tom.server.log.getvalue())


def test_key_is_for_its_owner_alone(tom, jobs):
    path = jobs.directory / ".sessions" / "key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_wrong_token_gives_no_session_and_stays_out_of_the_log(server, make_token):
    visitor, token = Visitor(server), make_token()
    wrong = f"{token[:-1]}{'a' if token[-1] != 'a' else 'b'}"
    assert visitor.sign_in(wrong)[0] == 401
    for body in (b"", b"{}", b"[]", b'{"token": 7}', b'"x"', b"[" * 3000):
        assert visitor.ask("POST", "/ui/sign-in", body, Origin=ORIGIN)[0] == 400
    assert visitor.cookies == {}
    assert token[14:-6] not in server.log.getvalue()


@pytest.mark.parametrize("role", [Role.WORKER, Role.MONITOR])
def test_token_of_a_program_is_for_no_person(server, make_token, role):
    visitor = Visitor(server)
    assert visitor.sign_in(make_token("prometheus", role))[0] == 403
    assert visitor.cookies == {}


def test_admin_may_what_admins_may(server, make_token):
    visitor = Visitor(server)
    visitor.sign_in(make_token("root", Role.ADMIN))
    assert visitor.me() == ("admin", "root")
    assert visitor.fetch("POST", "/cloudupload/2?cmd=kill")[0] == 200


# --- its end


def test_session_ends_by_signing_out_also_where_the_cookie_was_copied(tom):
    cookies = dict(tom.cookies)
    assert tom.fetch("POST", "/ui/sign-out")[0] == 200
    assert tom.cookies == {}
    tom.cookies = cookies
    assert tom.me() == ("stranger", None)
    assert "event=signed-out user=tom session=" in tom.server.log.getvalue()


def test_session_of_a_revoked_token_is_over(tom, tokens):
    tokens.remove(tokens.tokens()[0].id)
    assert tom.fetch("GET", "/api/v1/jobs")[0] == 401
    assert tom.cookies == {}


def test_session_of_an_expired_token_is_over(server, make_token):
    visitor = Visitor(server)
    visitor.sign_in(make_token(seconds=2))
    assert visitor.me() == ("user", "tom")
    deadline = time.monotonic() + 60
    while visitor.me()[0] == "user":
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("age", "idle", "is_alive"), [(0, 0, True), (43_190, 10, True), (43_201, 10, False), (3700, 3601, False)]
)
def test_session_ends_after_its_time_and_when_it_is_not_used(tom, jobs, age, idle, is_alive):
    now = int(time.time())
    text = forged(tom.server, key_of(jobs), sub="tom", role="user", way="token", token=None, began=now - age,
                  used=now - idle)  # fmt: skip
    tom.cookies = {"clouduploader": text}
    assert (tom.me()[0] == "user") is is_alive


def test_only_what_the_user_does_keeps_a_session_alive(tom, jobs):
    def used(ask):
        tom.cookies = {"clouduploader": forged(tom.server, key_of(jobs), way="token", used=int(time.time()) - 100)}
        ask()
        claims = jwt.decode(tom.cookies["clouduploader"], options={"verify_signature": False})
        return time.time() - claims["used"] < 60

    assert not used(lambda: tom.fetch("GET", "/api/v1/jobs"))
    assert used(lambda: tom.fetch("GET", "/ui/session"))
    assert used(lambda: tom.go("/ui"))
    tom.me()
    assert used(lambda: tom.fetch("POST", "/cloudupload/1?cmd=kill"))


def test_session_of_a_way_that_was_taken_back_is_over(tom, jobs):
    tom.cookies = {"clouduploader": forged(tom.server, key_of(jobs))}
    assert tom.me() == ("stranger", None)


def test_sessions_live_through_a_restart_but_not_without_their_key(tom, serve, jobs):
    tom.server = serve(jobs, **SETTINGS)
    assert tom.me() == ("user", "tom")
    (jobs.directory / ".sessions" / "key").unlink()
    tom.server = serve(jobs, **SETTINGS)
    tom.server.source_address = ("127.0.0.2", 0)
    assert tom.me() == ("stranger", None)


def test_key_that_is_none_is_told_of(serve, jobs, make_token):
    (jobs.directory / ".sessions").mkdir()
    (jobs.directory / ".sessions" / "key").write_bytes(b"short")
    server = serve(jobs, **SETTINGS)
    assert Visitor(server).sign_in(make_token())[0] == 500
    assert (jobs.directory / ".sessions" / "key").read_bytes() == b"short"


def test_long_ended_sessions_are_forgotten(tom, jobs):
    old = jobs.directory / ".sessions" / ("o" * 22)
    tom.fetch("POST", "/ui/sign-out")
    old.touch()
    os.utime(old, (0, 0))
    sessions.Sessions(jobs.directory).end(sessions.Session(id="n" * 22, user="t", role=Role.USER, way="token",
                                                           token=None, began=0, used=0))  # fmt: skip
    names = {path.name for path in (jobs.directory / ".sessions").iterdir()}
    assert old.name not in names
    assert {"key", "n" * 22} < names
    assert len(names) == 3


# --- forgery


@pytest.mark.parametrize(
    "cookie",
    ["", "x", "a.b.c", forged(None), jwt.encode({"aud": "session", "sub": "root"}, None, algorithm="none"), "\xff",
     "\udcff"],
)  # fmt: skip
def test_cookie_of_another_key_is_worth_less_than_none(server, cookie):
    server.source_address = None  # of the backend's network
    visitor = Visitor(server)
    assert visitor.me() == ("backend", None)
    visitor.cookies = {"clouduploader": cookie}
    assert visitor.me() == ("stranger", None)
    assert visitor.cookies == {}


def test_what_was_signed_for_another_purpose_is_no_session(tom, jobs):
    tom.cookies = {"clouduploader": forged(tom.server, key_of(jobs), aud="openid")}
    assert tom.me() == ("stranger", None)


@pytest.mark.parametrize("csrf", [None, "", "x", "\xe9"])
def test_change_without_the_sessions_token_is_refused(tom, jobs, csrf):
    tom.csrf = csrf
    status, _, body = tom.fetch("POST", "/api/v1/jobs/1/kill")
    assert (status, json.loads(body)["detail"]) == (403, "the header X-CSRF-Token is missing or wrong")
    assert tom.ask("POST", "/cloudupload/1?cmd=kill")[0] == 403  # as by no browser
    assert tom.fetch("POST", "/ui/sign-out")[0] == 403
    assert jobs.read("1")[0].state is JobState.CREATED


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": f"https://{HOST}"}, {"Origin": f"{ORIGIN}:1"},
     {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}],
)  # fmt: skip
def test_foreign_page_changes_nothing_and_signs_in_no_user(tom, make_token, headers):
    assert tom.fetch("POST", "/api/v1/jobs/1/kill", **headers)[0] == 403
    assert Visitor(tom.server).fetch("POST", "/ui/sign-in", {"token": make_token()}, **headers)[0] == 403


def test_page_without_a_session_changes_nothing(server):
    server.source_address = None
    assert Visitor(server).fetch("POST", "/cloudupload/1?cmd=kill")[0] == 403
    assert Visitor(server).ask("POST", "/cloudupload/1?cmd=kill")[0] == 200  # the backend


@pytest.mark.parametrize("host", ["evil.example", f"evil.{HOST}", f"{HOST}.evil.example:80", "127.0.0.1", "", "[::2]"])
def test_request_for_another_name_is_refused(tom, host):
    for path in ("/ui", "/api/v1/jobs", "/cloudupload", "/ui/sign-in"):
        assert tom.ask("GET", path, host=host)[0] == 421


@pytest.mark.parametrize("host", [HOST, f"{HOST}:8443", HOST.upper(), "[::1]", "[::1]:5452"])
def test_request_for_our_name_is_taken(tom, host):
    assert tom.ask("GET", "/api/v1/jobs", host=host)[0] == 200


def test_names_do_not_matter_without_sign_in(serve, jobs):
    assert Visitor(serve(jobs)).ask("GET", "/cloudupload", host="evil.example")[0] == 200


# --- where there is none


def test_without_sign_in_there_are_no_ways(serve, jobs, make_token):
    visitor = Visitor(serve(jobs))
    found = json.loads(visitor.ask("GET", "/ui/session")[2])
    assert found == {"role": "backend", "user": None, "csrf": None, "ways": [], "provider": None}
    assert visitor.go("/ui/sign-in")[0] == 404
    assert visitor.go("/ui/openid")[0] == 404
    assert visitor.ask("POST", "/ui/sign-in", json.dumps({"token": make_token()}).encode())[0] == 404
    assert visitor.sign_in(make_token())[0] == 403  # by a page


def test_stranger_is_led_to_sign_in_and_back_but_to_no_other_site(server):
    visitor = Visitor(server)
    assert visitor.go("/ui") == (303, "/ui/sign-in?next=/ui")
    assert visitor.go("/ui/job/7") == (303, "/ui/sign-in?next=/ui/job/7")
    assert visitor.go("/ui/job/a%22b") == (303, "/ui/sign-in")
    assert visitor.ask("GET", "/ui")[0] == 401
    assert visitor.go("/cloudupload")[0] == 401
    assert visitor.go("/ui/sign-in?next=/ui")[0] == 200


# --- by OpenID Connect


@pytest.fixture
def provider():
    with openid_provider.running() as made:
        yield made


@pytest.fixture
def openid(serve, jobs, tokens, provider):
    """A function that gives a visitor of a server that takes users of the provider."""

    def make(**settings):
        section = {"openid_issuer": provider.issuer, "openid_client_id": openid_provider.CLIENT,
                   "openid_users": "users", **SETTINGS, "sign_in": "openid", **settings}  # fmt: skip
        server = serve(jobs, **section)
        server.source_address = ("127.0.0.2", 0)
        return Visitor(server)

    return make


def begin(visitor, provider, path="/ui/openid?next=/ui/job/1"):
    status, url = visitor.go(path)
    assert status == 303
    return provider.authorize(url)


def finish(visitor, **query):
    return visitor.go(f"/ui/openid/callback?{urllib.parse.urlencode(query)}", Sec_Fetch_Dest="document")


def test_user_of_the_provider_comes_back_to_where_he_wanted(openid, provider):
    visitor = openid(openid_admins="admins")
    provider.claims["groups"] = ["admins"]
    back = begin(visitor, provider)
    assert finish(visitor, **back, session_state="x", scope="openid") == (303, "/ui/job/1")
    assert visitor.me() == ("admin", "248")
    assert visitor.cookies.keys() == {"clouduploader"}
    assert provider.requests[1][3]["redirect_uri"] == f"{ORIGIN}/ui/openid/callback"
    assert "way=openid" in visitor.server.log.getvalue()
    assert back["code"] not in visitor.server.log.getvalue()
    assert visitor.sign_in("clup_x")[0] == 404


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/cloudupload", "/ui\\evil", "/ui/../x"])
def test_way_back_leads_to_our_pages_alone(openid, provider, target):
    visitor = openid()
    assert finish(visitor, **begin(visitor, provider, f"/ui/openid?next={target}")) == (303, "/ui")


def test_answer_that_was_not_asked_for_is_refused(openid, provider):
    visitor, other = openid(), None
    back = begin(visitor, provider)
    other = Visitor(visitor.server)
    for query in (back, back | {"state": "x"}, {"code": "a-code"}, {}):
        assert finish(other, **query) == (303, "/ui/sign-in?problem=stale")
    assert finish(visitor, **(back | {"state": "x"})) == (303, "/ui/sign-in?problem=stale")
    assert finish(visitor, **back) == (303, "/ui/sign-in?problem=stale")  # it was wrong once
    assert [path for _, path, _, _ in provider.requests].count("/token") == 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"error": "access_denied"}, "denied"),
        ({"error": "server_error"}, "provider"),
        ({"iss": "https://evil.example"}, "provider"),
        ({"code": None}, "provider"),
    ],
)
def test_answer_that_is_a_refusal_is_told_of(openid, provider, change, problem):
    visitor = openid()
    provider.answers["/token"] = (400, {}, b'{"error": "invalid_grant"}')
    back = begin(visitor, provider) | change
    query = {name: value for name, value in back.items() if value}
    assert finish(visitor, **query) == (303, f"/ui/sign-in?problem={problem}")
    assert visitor.me() == ("stranger", None)
    assert "event=not-signed-in" in visitor.server.log.getvalue()


def test_account_that_is_none_here_is_told_of(openid, provider):
    visitor = openid(openid_users="others")
    assert finish(visitor, **begin(visitor, provider)) == (303, "/ui/sign-in?problem=unknown")
    assert 'text="248 may not use this service"' in visitor.server.log.getvalue()


def test_provider_that_is_not_there_is_told_of(openid):
    visitor = openid(openid_issuer="http://127.0.0.1:9")
    assert visitor.go("/ui/openid") == (303, "/ui/sign-in?problem=provider")


def test_new_settings_make_another_provider(openid, provider):
    visitor = openid()
    begin(visitor, provider)
    visitor.server.section["openid_issuer"] = "http://127.0.0.1:9"
    visitor.server.source.request_reload()
    deadline = time.monotonic() + 60
    while visitor.go("/ui/openid") != (303, "/ui/sign-in?problem=provider"):
        assert time.monotonic() < deadline


# --- by TLS


def test_behind_tls_the_cookie_is_for_this_host_and_tls_alone(serve, jobs, make_token):
    server = serve(jobs, **SETTINGS, proxies="127.0.0.1")
    visitor = Visitor(server)
    proxy = {"X_Forwarded_For": "127.0.0.9", "X_Forwarded_Proto": "https"}
    body = json.dumps({"token": make_token()}).encode()
    assert visitor.ask("POST", "/ui/sign-in", body, Origin=ORIGIN, **proxy)[0] == 403
    assert visitor.ask("POST", "/ui/sign-in", body, Origin=f"https://{HOST}", **proxy)[0] == 200
    assert visitor.attributes == {"__Host-clouduploader": {"HttpOnly", "Path=/", "SameSite=Lax", "Secure"}}
    assert json.loads(visitor.ask("GET", "/ui/session", **proxy)[2])["user"] == "tom"
    visitor.cookies = {"clouduploader": visitor.cookies["__Host-clouduploader"]}  # which another host could have set
    assert json.loads(visitor.ask("GET", "/ui/session", **proxy)[2])["role"] == "stranger"


def test_session_that_others_can_read_is_none(serve, jobs, make_token):
    server = serve(jobs, **{**SETTINGS, "clients": "0.0.0.0/0"}, proxies="127.0.0.1")
    visitor = Visitor(server)
    visitor.sign_in(make_token())
    away = {"X_Forwarded_For": "192.0.2.1", "X_Forwarded_Proto": "http"}
    assert json.loads(visitor.ask("GET", "/ui/session", **away)[2])["role"] == "stranger"
    body = json.dumps({"token": make_token()}).encode()
    assert visitor.ask("POST", "/ui/sign-in", body, Origin=ORIGIN, **away)[0] == 403
