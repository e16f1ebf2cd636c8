"""Who may do what: every route as each principal, and what users see of each other."""

import asyncio
import datetime
import json
import re
import types
import urllib.parse

import pytest
from aiohttp.test_utils import make_mocked_request

from clouduploader.model.job import JobState
from clouduploader.server import access, operations, page, settings
from clouduploader.server.access import Kind, Principal
from clouduploader.server.api import table
from clouduploader.server.network import origin
from clouduploader.server.obs import routes
from clouduploader.server.replies import RefusalError
from clouduploader.server.signin import routes as signin
from clouduploader.server.signin.sessions import Sessions
from clouduploader.server.signin.settings import Way
from clouduploader.store import config
from clouduploader.store.accounts import AccountStore
from clouduploader.store.images import ImageStore
from clouduploader.store.tokens import Role, TokenStore, TokenUses

ROUTES = [*routes.ROUTES, *operations.ROUTES, *page.ROUTES, *signin.ROUTES, *table.ROUTES]
ALL = "backend user admin worker monitor stranger"
JOBS = "backend user admin"
KEPT = "user admin"
WHO_MAY = {
    "hello": ALL,
    "pubkey": ALL,
    "show_description": ALL,
    "show_file": ALL,
    "show_sign_in": ALL,
    "show_session": ALL,
    "sign_in": ALL,
    "sign_out": ALL,
    "go_to_provider": ALL,
    "return_from_provider": ALL,
    "workerstatus": "backend user admin worker monitor",
    "show_metrics": "backend admin monitor",
    "show_health": ALL,
    "serverstatus": "backend admin",
    "ajaxstatus": "backend admin",
    "create": JOBS,
    "create_by_query": JOBS,
    "upload": JOBS,
    "kill": JOBS,
    "show": JOBS,
    "log": JOBS,
    "list_jobs": JOBS,
    "show_jobs_page": JOBS,
    "show_job_page": JOBS,
    "show_upload_page": JOBS,
    "show_accounts_page": KEPT,
    "show_tokens_page": KEPT,
    "show_service_page": "admin",
    "api.accounts.change_account": KEPT,
    "api.accounts.create_account": KEPT,
    "api.accounts.list_accounts": KEPT,
    "api.accounts.remove_account": KEPT,
    "api.accounts.show_account": KEPT,
    "api.accounts.show_guide": KEPT,
    "api.accounts.verify_account": KEPT,
    "api.cluster.append_journal": "worker",
    "api.cluster.append_log": "worker",
    "api.cluster.beat": "worker",
    "api.cluster.claim_job": "worker",
    "api.cluster.drain_host": "admin",
    "api.cluster.end_job": "worker",
    "api.cluster.greet": "worker",
    "api.cluster.release_job": "worker",
    "api.cluster.show_cluster": "admin",
    "api.cluster.show_journal": "worker",
    "api.cluster_image.send_image": "worker",
    "api.images.create_image": JOBS,
    "api.images.list_images": JOBS,
    "api.images.receive_piece": JOBS,
    "api.images.remove_image": JOBS,
    "api.images.show_abilities": ALL,
    "api.images.show_image": JOBS,
    "api.images.show_offset": JOBS,
    "api.job_log.follow_log": JOBS,
    "api.job_log.show_log": JOBS,
    "api.jobs.create_job": JOBS,
    "api.jobs.kill_job": JOBS,
    "api.jobs.list_jobs": JOBS,
    "api.jobs.retry_job": JOBS,
    "api.jobs.show_job": JOBS,
    "api.me.show_me": ALL,
    "api.openapi.show_description": ALL,
    "api.platforms.list_platforms": JOBS,
    "api.service.list_users": "admin",
    "api.service.show_service": "admin",
    "api.tokens.create_token": KEPT,
    "api.tokens.list_tokens": KEPT,
    "api.tokens.revoke_token": KEPT,
}
"""Written down a second time, by handlers: a new one has to be thought of twice."""
FIELDS = {"user": "tom", "target": "directory", "project": "p", "repository": "r", "package": "k", "arch": "x86_64",
          "filename": "a.raw", "size": "3"}  # fmt: skip
OWN, FOREIGN, NEW, NONE = "1", "2", "3", "4711"
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "3", "Upload-Offset": "0",
       "Content-Type": "application/offset+octet-stream"}  # fmt: skip


@pytest.fixture
def jobs(make_spool, make_job):
    """A spool with a job of tom's, and two of anna's: one is over, one waits for its image."""
    jobs = make_spool()
    make_job(jobs, OWN, state=JobState.FAILED, user="tom", log=b"tom's log", details="tom's details")
    make_job(jobs, FOREIGN, state=JobState.FAILED, user="anna", log=b"anna's log", details="anna's details")
    make_job(jobs, NEW, state=JobState.CREATED, user="anna", size=3, project="anna's project", log=b"anna's log")
    (jobs.directory / "next").write_text('<clouduploadjob name="10" />\n')
    store, now = ImageStore(jobs.directory), datetime.datetime.now(datetime.UTC)
    for job, user in ((OWN, "tom"), (FOREIGN, "anna"), (NEW, "anna")):
        made = store.create(user, 3, metadata={"filename": f"{user}'s image"}, now=now)
        for path in (store.path(made), store.path(made).with_suffix(".json")):
            path.rename(path.with_stem(image_id(job)))
    return jobs


@pytest.fixture
def tokens(tmp_path):
    """The tokens of the server's home."""
    home = tmp_path / "etc" / "cloudupload"
    home.mkdir(parents=True)
    (home / "_pubkey").write_text("a key")
    return TokenStore(home)


@pytest.fixture
def bearer(tokens):
    """A factory of headers with a new token."""

    def make(user="tom", role=Role.USER, *, expires=None):
        now = datetime.datetime.now(datetime.UTC)
        return {"Authorization": f"Bearer {tokens.create(user, role, note='', expires=expires, now=now)[1]}"}

    return make


@pytest.fixture
def signed_in(tokens, jobs):
    """A factory of headers as the page sends them in a new session."""

    def make(user="tom", role=Role.USER):
        now = datetime.datetime.now(datetime.UTC)
        token = tokens.create(user, role, note="", expires=None, now=now)[0]
        keeper = Sessions(jobs.directory)
        session = keeper.begin(user, role, Way.TOKEN, token=token.id)
        return {"Cookie": f"clouduploader={keeper.write(session)}", "X_CSRF_Token": keeper.csrf_token(session),
                "Origin": "http://obs", "Sec_Fetch_Site": "same-origin"}  # fmt: skip

    return make


@pytest.fixture
def server(serve, jobs, tokens):
    """A server that trusts 127.0.0.1, and lets in strangers from 127.0.0.2, where its clients are."""
    made = serve(jobs, allow="127.0.0.1", clients="127.0.0.0/8", sign_in="token", hosts="obs")
    now, accounts = datetime.datetime.now(datetime.UTC), AccountStore(tokens.path.parent.parent)
    made.token_ids = {NONE: "x" * 8}
    for job, user in ((OWN, "tom"), (FOREIGN, "anna"), (NEW, "anna")):
        made.token_ids[job] = tokens.create(user, Role.USER, note=f"{user}'s", expires=None, now=now)[0].id
    for user in ("tom", "anna"):
        accounts.create(user, "gce", {"gcs_bucket": f"{user}-bucket"}, now=now)
    made.source_address = ("127.0.0.2", 0)
    return made


def status_of(answer):
    return int(answer[0][:3])


def name_of(route):
    """Return the name of a route's handler, with its module if that is one of the API."""
    module = route.handler.__module__.partition("clouduploader.server.api.")[2]
    return f"api.{module}.{route.handler.__name__}" if module else route.handler.__name__


def ask(server, route, method, job, headers):
    """Send a request that has all that a route wants."""
    query = dict(route.selector)
    if any(parameter.is_required for parameter in route.parameters):
        query = {parameter.name: FIELDS[parameter.name] for parameter in route.parameters}
    path = route.path.replace("$job", job).replace("$image", image_id(job)).replace("$target", "gce")
    path = path.replace("$host", "h")
    path = path.replace("$name", job if path.startswith("/ui/") else server.token_ids[job])
    if "/accounts/" in path and job != OWN:
        query["user"] = {NONE: "eve"}.get(job, "anna")
    target = path + (f"?{urllib.parse.urlencode(query)}" if query else "")
    body = BODIES.get(name_of(route))
    if "/images" in path:
        headers = headers | TUS
    elif isinstance(body, dict):
        body, headers = json.dumps(body).encode(), headers | {"Content-Type": "application/json"}
    return server.ask(method, target, body if method in ("POST", "PUT", "PATCH") else None, **headers)


def image_id(job):
    """Return the id of the image of the one whose the job is."""
    return job[0] * 32


def skeleton(**changes):
    fields = {**FIELDS, **changes}
    return f"<clouduploadjob>{''.join(f'<{k}>{v}</{k}>' for k, v in fields.items())}</clouduploadjob>".encode()


BODIES = {"create": skeleton(), "create_by_query": b"{}", "upload": b"abc", "api.images.receive_piece": b"abc",
          "api.jobs.create_job": {"user": "tom", "target": "directory", "size": 3}, "api.tokens.create_token": {},
          "api.accounts.create_account": {"target": "ec2"}, "api.accounts.change_account": {"values": {}}}  # fmt: skip


# --- every route


ROLES = {Kind(role.value): role for role in Role}


@pytest.mark.parametrize(
    ("kind", "way"), [*((kind, "bearer") for kind in ROLES), *((kind, "signed_in") for kind in ROLES),
                      (Kind.BACKEND, None), (Kind.STRANGER, None)]
)  # fmt: skip
def test_every_route_is_open_to_whom_it_should_be(server, request, kind, way):
    make = request.getfixturevalue(way) if way else None
    if kind is Kind.BACKEND:
        server.source_address = None
    refusal = 401 if kind is Kind.STRANGER else 403
    asked = 0
    for route in ROUTES:
        is_open = kind in WHO_MAY[name_of(route)].split()
        for method in route.methods:
            answer = ask(server, route, method, OWN, make("tom", ROLES[kind]) if make else {})
            assert (status_of(answer) == refusal) != is_open, (kind, method, route.path, answer)
            assert is_open or status_of(answer) == refusal
            assert ("WWW-Authenticate" in "".join(answer[1])) == (not is_open and kind is Kind.STRANGER)
            asked += 1
    assert asked > 45


@pytest.mark.parametrize("role", [*Role, None])
def test_what_is_not_well_is_told_to_some(server, bearer, role):
    document = json.loads(server.ask("GET", "/healthz", **bearer("tom", role) if role else {})[2])
    assert document["status"] == "failed"  # there is no worker
    assert ("checks" in document) == (role in (Role.ADMIN, Role.MONITOR))


def test_every_right_is_in_the_table():
    assert access.TABLE.keys() == set(access.Right)
    assert {route.right for route in ROUTES} == set(access.Right)


@pytest.mark.parametrize(
    ("principal", "who"),
    [(Principal(Kind.BACKEND), "a client without a token"), (Principal(Kind.WORKER, "eve"), "eve")],
)
def test_refusal_says_who_may_not_do_what(principal, who):
    with pytest.raises(RefusalError, match=rf"^access denied for {who}: not allowed to see, make and revoke tokens$"):
        access.reach(principal, access.Right.KEEP_TOKENS)


@pytest.mark.parametrize("way", ["bearer", "signed_in"])
def test_job_of_another_user_is_as_one_that_is_not_there(server, request, way):
    tom, asked = request.getfixturevalue(way)("tom"), 0
    for route in ROUTES:
        for method in route.methods if "$" in route.path and "user" in WHO_MAY[name_of(route)].split() else ():
            wanted = ask(server, route, method, NONE, tom)
            for job in (FOREIGN, NEW):
                assert ask(server, route, method, job, tom) == wanted
                asked += 1
            assert status_of(wanted) == 404
    assert asked > 20


@pytest.mark.parametrize("way", ["bearer", "signed_in"])
def test_no_answer_to_a_user_tells_of_another(server, request, way):
    make, seen = request.getfixturevalue(way), b""
    tom = make("tom")
    for route in ROUTES:
        for method in route.methods:
            for job in (OWN, FOREIGN, NEW):
                seen += ask(server, route, method, job, make("tom"))[2]
    for query in ("?user=anna", "?text=anna", "?state=created", "?cursor=4"):
        found = json.loads(server.ask("GET", f"/api/v1/jobs{query}", **tom)[2])
        assert found["total"] is None
        seen += json.dumps(found).encode()
    for query in ("?name=2", "?name=1&name=2&name=3", ""):
        seen += server.ask("GET", f"/cloudupload{query}", **tom)[2]
    assert b"tom" in seen
    assert b"anna" not in seen


def test_user_sees_all_of_the_own_jobs(server, bearer):
    tom = bearer("tom")
    for target in ("/cloudupload", "/cloudupload?name=1&name=2"):
        for _ in range(2):  # from the disk, and from what is kept of it
            assert re.findall(rb'name="(\d+)"', server.ask("GET", target, **tom)[2]) == [b"1"]
    assert [one["id"] for one in json.loads(server.ask("GET", "/api/v1/jobs", **tom)[2])["jobs"]] == ["1"]
    assert server.ask("GET", "/cloudupload/1/_log", **tom)[2] == b"tom's log"
    assert b"tom's details" in server.ask("GET", "/cloudupload/1", **tom)[2]


@pytest.mark.parametrize("role", [Role.ADMIN, None])
def test_admin_and_backend_see_all(server, bearer, role):
    headers = bearer("root", role) if role else {}
    if not role:
        server.source_address = None
    assert re.findall(rb'name="(\d+)"', server.ask("GET", "/cloudupload", **headers)[2]) == [b"1", b"2", b"3"]
    assert json.loads(server.ask("GET", "/api/v1/jobs", **headers)[2])["total"] == 3
    assert server.ask("GET", "/cloudupload/2/_log", **headers)[2] == b"anna's log"
    assert status_of(server.ask("POST", "/cloudupload/3?cmd=kill", b"", **headers)) == 200


def test_damaged_job_is_nobodys(server, bearer, jobs):
    (jobs.directory / "9").write_text("<clouduploadjob><user>tom</user>")
    tom = bearer("tom")
    assert status_of(server.ask("GET", "/api/v1/jobs/9", **tom)) == 404
    assert [one["id"] for one in json.loads(server.ask("GET", "/api/v1/jobs", **tom)[2])["jobs"]] == ["1"]


# --- whose job it is


def test_job_is_the_users_whatever_the_request_says(server, bearer, jobs):
    tom = bearer("tom")
    server.ask("POST", "/cloudupload", skeleton(user="anna"), **tom)
    query = urllib.parse.urlencode({**FIELDS, "user": "anna"})
    server.ask("POST", f"/cloudupload?{query}", b"{}", **tom)
    assert [jobs.read(name)[0].user for name in ("10", "11")] == ["tom", "tom"]
    assert status_of(server.ask("PUT", "/cloudupload/10", b"abc", **tom)) == 200
    assert jobs.file_path("10").read_bytes() == b"abc"
    assert status_of(server.ask("POST", "/cloudupload/11?cmd=kill", b"", **tom)) == 200


def test_admin_makes_jobs_for_others(server, bearer, jobs):
    server.ask("POST", "/cloudupload", skeleton(user="anna"), **bearer("root", Role.ADMIN))
    assert jobs.read("10")[0].user == "anna"


def test_account_is_the_users_own(server, bearer, jobs, tokens):
    accounts = AccountStore(tokens.path.parent.parent)
    now = datetime.datetime.now(datetime.UTC)
    for user in ("tom", "anna"):
        values = {"arn": f"arn:aws:iam::123456789012:role/{user}", "external_id": f"id of {user}".replace(" ", "-")}
        accounts.create(user, "ec2", values, of_one_user=values, now=now)
    data = {"region": "us-east-1", "ami_name": "image"}

    def create(**given):
        body = skeleton(target="ec2", details=json.dumps(data | given).encode().hex())
        return server.ask("POST", "/cloudupload", body, **bearer("tom"))

    assert status_of(create()) == 200
    assert json.loads(jobs.data_path("10").read_bytes()) == data | accounts.get("tom", "ec2")
    status, _, body = create(**accounts.get("anna", "ec2"))
    assert status.startswith("400 ")
    assert b"the target data may not have external_id, arn: that is taken from the account of tom" in body
    assert not jobs.job_path("11").exists()


def test_backends_target_data_stay_as_they_are(server, jobs):
    server.source_address = None
    data = b'{"arn": "", "region": "nowhere", "user_id": 7}'
    server.ask("POST", "/cloudupload", skeleton(target="ec2", details=data.hex()))
    assert jobs.data_path("10").read_bytes() == data


# --- tokens


def test_token_counts_also_where_none_is_needed(server, bearer):
    server.source_address = None
    assert status_of(server.ask("GET", "/cloudupload/2")) == 200
    assert status_of(server.ask("GET", "/cloudupload/2", **bearer("tom"))) == 404
    assert status_of(server.ask("GET", "/", Authorization="Bearer x")) == 401
    assert status_of(server.ask("GET", "/cloudupload/2", Authorization="Basic eDp5")) == 200  # as OBS has it


def test_token_that_is_worth_nothing_is_refused(server, bearer, tokens):
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=5)
    revoked = bearer("tom")
    assert status_of(server.ask("GET", "/cloudupload", **revoked)) == 200
    tokens.remove(tokens.tokens()[-1].id)
    for headers in (revoked, bearer("tom", expires=past)):
        status, lines, _ = server.ask("GET", "/cloudupload", **headers)
        assert status == "401 the token is wrong, was revoked or has expired"
        assert 'WWW-Authenticate: Bearer realm="clouduploader", error="invalid_token"' in lines
    two = "\r\n".join(["Bearer x", f"Authorization: {bearer()['Authorization']}"])
    assert status_of(server.ask("GET", "/cloudupload", Authorization=two)) == 401


def test_scheme_may_be_written_in_any_case(server, bearer):
    text = bearer("tom")["Authorization"].removeprefix("Bearer ")
    assert status_of(server.ask("GET", "/cloudupload", Authorization=f"bEARER   {text} ")) == 200


def test_tokens_that_cannot_be_read_let_nobody_in(server, bearer, tokens):
    headers = bearer("tom")
    tokens.path.write_bytes(b"no database" * 1000)
    assert server.ask("GET", "/cloudupload", **headers)[0] == "500 the tokens can't be read"
    assert "tokens.sqlite is damaged" in server.log.getvalue()


def test_use_is_noted_and_trouble_with_it_hinders_nobody(server, bearer, jobs, tokens):
    headers = bearer("tom")
    stored = tokens.tokens()[-1]
    server.ask("GET", "/", **headers)
    assert TokenUses(jobs.directory).last(stored.id) is not None
    TokenUses(jobs.directory).forget(stored.id)
    (jobs.directory / ".tokens").rmdir()
    (jobs.directory / ".tokens").touch()
    assert status_of(server.ask("GET", "/", **headers)) == 200
    assert "the use of a token can't be noted" in server.log.getvalue()


def test_log_tells_who_did_what_from_where_and_no_secret(server, bearer, tokens):
    headers = bearer("tom")
    stored = tokens.tokens()[-1]
    server.ask("GET", "/api/v1/jobs/1", **headers)
    server.ask("GET", "/api/v1/jobs/2", **headers)
    server.ask("GET", "/cloudupload")
    tokens.remove(stored.id)
    server.ask("GET", "/cloudupload", **headers)
    lines = [line for line in server.log.getvalue().splitlines() if "event=request" in line]
    tom = f"client=127.0.0.2 role=user user=tom token={stored.id}"
    assert [re.sub(r"^.*event=request | seconds=.*", "", line) for line in lines] == [
        f"job=1 {tom} method=GET path=/api/v1/jobs/1 status=200",
        f"job=2 {tom} method=GET path=/api/v1/jobs/2 status=404",
        "client=127.0.0.2 role=stranger method=GET path=/cloudupload status=401",
        f"client=127.0.0.2 role=stranger token={stored.id} method=GET path=/cloudupload status=401",
    ]
    assert headers["Authorization"][-38:] not in server.log.getvalue()


def test_client_of_no_network_is_turned_away_with_a_token_too(serve, jobs, bearer):
    server = serve(jobs, allow="none", clients="127.0.0.9")
    assert server.ask("GET", "/", **bearer())[0] == "403 access denied for 127.0.0.1"


def test_wrong_tokens_are_answered_later_each_time():
    wrong = access.WrongTokens()
    assert [wrong.delay("tom's", now) for now in range(7)] == [0.25, 0.5, 1, 2, 4, 8, 8]
    assert wrong.delay("anna's", 7) == 0.25
    assert wrong.delay("tom's", 65.9) == 8
    assert wrong.delay("tom's", 125.9) == 0.25
    assert [wrong.delay("tom's", 126) for _ in range(2000)][-1] == 8


def test_wrong_tokens_of_many_clients_take_bounded_memory():
    wrong = access.WrongTokens()
    for number in range(access.MAX_CLIENTS + 10):
        wrong.delay(f"client {number}", 0)
    assert len(wrong._counts) == access.MAX_CLIENTS


# --- on the way


@pytest.fixture
def identify(tokens, jobs, tmp_path):
    """A function that tells who sends a request from an address, with TLS or without."""

    def call(headers, *, address, is_tls=False, **section):
        loaded = config.load(home=tokens.path.parent.parent, spool=jobs.directory, environment={})
        source = settings.SettingsSource(lambda: settings.load(section, tmp_path))
        gate = access.Gate(loaded, source, types.SimpleNamespace(tell=print))
        known = {"peername": (address, 1)}
        transport = types.SimpleNamespace(get_extra_info=lambda name, default=None: known.get(name, default))
        request = make_mocked_request("GET", "/", headers=headers, transport=transport, sslcontext=is_tls or None)
        return asyncio.run(gate.identify(origin.believe(request, source.current)))

    return call


@pytest.mark.parametrize(
    ("address", "options"),
    [("127.0.0.7", {}), ("::1", {}), ("::ffff:127.0.0.1", {}), ("192.0.2.1", {"is_tls": True}),
     ("192.0.2.1", {"clear_tokens": "yes"})],
)  # fmt: skip
def test_token_that_others_cannot_read_is_taken(identify, bearer, tokens, address, options):
    headers = bearer("tom")
    stored = tokens.tokens()[-1]
    assert identify(headers, address=address, **options) == Principal(Kind.USER, "tom", stored.id)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_token_that_others_can_read_is_refused(identify, bearer, address):
    with pytest.raises(RefusalError, match="tokens are not taken over http") as caught:
        identify(bearer("tom"), address=address, clients="0.0.0.0/0 ::/0")
    assert caught.value.status == 403


BY_PROXY = {"proxies": "127.0.0.2 192.0.2.2", "allow": "127.0.0.0/8 10.1.0.0/16", "clients": "0.0.0.0/0"}


@pytest.mark.parametrize(
    ("peer", "forwarded", "kind"),
    [("127.0.0.2", "10.1.0.7", Kind.BACKEND), ("127.0.0.2", "198.51.100.7", Kind.STRANGER),
     ("127.0.0.2", "10.1.0.7, 198.51.100.7", Kind.STRANGER), ("127.0.0.2", "10.1.0.7, nonsense", Kind.STRANGER),
     ("127.0.0.2", "127.0.0.1, 198.51.100.7, 192.0.2.2", Kind.STRANGER), ("127.0.0.2", "", Kind.STRANGER),
     ("127.0.0.2", None, Kind.STRANGER), ("127.0.0.1", "127.0.0.1", Kind.STRANGER),
     ("198.51.100.7", "10.1.0.7", Kind.STRANGER), ("10.1.0.7", "10.1.0.7", Kind.STRANGER)],
)  # fmt: skip
def test_behind_a_proxy_the_network_of_the_client_decides(identify, peer, forwarded, kind):
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert identify(headers, address=peer, **BY_PROXY) == Principal(kind)


@pytest.mark.parametrize("peer", ["127.0.0.2", "::ffff:127.0.0.2"])
def test_token_by_a_proxy_on_this_host_is_taken_if_its_client_has_tls(identify, bearer, peer):
    headers = bearer("tom") | {"X-Forwarded-For": "198.51.100.7"}
    assert identify(headers | {"X-Forwarded-Proto": "https"}, address=peer, **BY_PROXY).user == "tom"
    for told in ({}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Proto": "https, http"}):
        with pytest.raises(RefusalError, match="tokens are not taken over http"):
            identify(headers | told, address=peer, **BY_PROXY)
    assert identify(headers, address=peer, **BY_PROXY, clear_tokens="yes").user == "tom"


def test_token_by_a_proxy_elsewhere_needs_tls_from_there_too(identify, bearer):
    headers = bearer("tom") | {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}
    with pytest.raises(RefusalError, match="tokens are not taken over http"):
        identify(headers, address="192.0.2.2", **BY_PROXY)
    assert identify(headers, address="192.0.2.2", is_tls=True, **BY_PROXY).user == "tom"


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_what_comes_by_a_proxy_that_is_not_named_is_a_strangers(identify, bearer, header):
    """One that was set up in front of the service, and forgotten in its settings: its clients may be anywhere."""
    headers = {header: "127.0.0.1", "X-Forwarded-Proto": "https"}
    assert identify(headers, address="127.0.0.1") == Principal(Kind.STRANGER)
    with pytest.raises(RefusalError, match="tokens are not taken over http"):
        identify(headers | bearer("tom"), address="127.0.0.1")
    assert identify(headers | bearer("anna"), address="127.0.0.1", is_tls=True).user == "anna"


def test_client_makes_itself_no_other_by_a_header(identify, bearer):
    headers = bearer("tom") | {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https"}
    with pytest.raises(RefusalError, match="tokens are not taken over http"):
        identify(headers, address="198.51.100.7", **BY_PROXY)


def test_client_of_no_network_is_refused_behind_a_proxy_too(identify, bearer):
    section = BY_PROXY | {"clients": "10.2.0.0/16"}
    for headers in ({}, bearer("tom")):
        with pytest.raises(RefusalError, match=r"access denied for 10\.3\.0\.7"):
            identify(headers | {"X-Forwarded-For": "10.3.0.7"}, address="127.0.0.2", **section)


def test_without_a_token_the_network_decides(identify):
    assert identify({}, address="10.1.0.7", allow="10.1.0.0/16") == Principal(Kind.BACKEND)
    assert identify({}, address="10.2.0.7", allow="10.1.0.0/16") == Principal(Kind.STRANGER)
    assert identify({}, address="127.0.0.1", allow="none") == Principal(Kind.STRANGER)
    assert identify({}, address="127.0.0.1") == Principal(Kind.BACKEND)
