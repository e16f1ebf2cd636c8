"""Clients of the API: a server that knows who asks by tokens."""

import datetime
import json

import pytest

from clouduploader.store.tokens import Role, TokenStore


@pytest.fixture
def home(tmp_path):
    """The server's home."""
    path = tmp_path / "etc" / "cloudupload"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def ask_as(serve, make_spool, home):
    """Return a function that asks the server with a new token, and returns the status and the document.

    It takes the name of the user; root is an administrator. `expires` is how many seconds the token lives.
    """
    jobs = make_spool()
    server, store = serve(jobs), TokenStore(home)

    def call(user, method, target, document=None, *, expires=None):
        now = datetime.datetime.now(datetime.UTC)
        role = Role.ADMIN if user == "root" else Role.USER
        ends = None if expires is None else now + datetime.timedelta(seconds=expires)
        text = store.create(user, role, note="of the test", expires=ends, now=now)[1]
        headers = {"Authorization": f"Bearer {text}", "Content-Type": "application/json"}
        body = None if method in ("GET", "DELETE") else json.dumps(document).encode() if document is not None else b""
        status, _, data = server.ask(method, f"/api/v1{target}", body, **headers)
        return int(status[:3]), json.loads(data) if data else None

    call.server, call.jobs, call.store = server, jobs, store
    return call
