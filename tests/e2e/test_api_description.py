"""The JSON API and its description, held against each other by schemathesis asking all there is as each principal.

`EXAMPLES=200 pytest tests/e2e/test_api_description.py` looks further, and elsewhere each time.
"""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import cluster_site

from clouduploader.model import job_xml
from clouduploader.model.job import JobState
from clouduploader.server.api import openapi, table
from clouduploader.store.accounts import AccountStore
from clouduploader.store.images import ImageStore
from clouduploader.store.tokens import Role, TokenStore

EXCLUDED = (
    "not_a_server_error",  # a full disk is none, see fakes/api_hooks.py
    "unsupported_method",  # OPTIONS is none of a path's, and answered with 405
    "positive_data_acceptance",  # a description can't tell what there is, and what excludes what
    "ignored_auth",  # without a token a client is another principal, and not a stranger everywhere
    "use_after_free",  # of images that are one's own there are always some
)
ROLES = {"admin": Role.ADMIN, "backend": None, "stranger": None, "user": Role.USER, "worker": Role.WORKER}


@pytest.mark.parametrize("kind", ROLES)
def test_server_is_as_described(make_spool, make_job, serve, tmp_path, kind):
    jobs, home, now = make_spool(), tmp_path / "etc" / "cloudupload", datetime.datetime.now(datetime.UTC)
    for name in "0123456789":  # schemathesis asks for these often, and hardly for the ones that it makes
        user = "tom" if int(name) % 2 else "anna"
        make_job(jobs, name, state=JobState.FAILED, log=b"0123456789", details="no", user=user)
    (jobs.directory / "next").write_bytes(job_xml.serialize_next(10**9))
    allow = "127.0.0.1" if kind == "backend" else "none"
    limits = dict.fromkeys(("user_requests", "user_jobs"), "1000000")
    site = cluster_site.Site(jobs, home, make_job, beat_seconds=1)
    site.publish("10")
    server = serve(jobs, cluster=site.parts(), idle_seconds="1", allow=allow, clients="127.0.0.1", **limits)
    headers = []
    if role := ROLES[kind]:
        token = TokenStore(home).create("tom", role, note="", expires=None, now=now)[1]
        headers = ["-H", f"Authorization: Bearer {token}"]
        AccountStore(home).create("anna", "azure", {"tenant": "annas-tenant"}, now=now)
        ImageStore(jobs.directory).create("anna", 3, metadata={"filename": "annas-image"}, now=now)
    description = tmp_path / "openapi.json"
    description.write_text(json.dumps(openapi.describe(table.ROUTES)))
    host, port = server.address
    phases = "coverage,fuzzing" if kind == "user" else "fuzzing"
    examples = os.environ.get("EXAMPLES")
    done = subprocess.run(
        [Path(sys.executable).with_name("st"), "run", description, f"--url=http://{host}:{port}", f"--phases={phases}",
         f"--exclude-checks={','.join(EXCLUDED)}", "--request-timeout=30", "--no-color", *headers,
         *([f"--max-examples={examples}"] if examples else ["--max-examples=2", "--generation-deterministic"])],
        env=os.environ | {"SCHEMATHESIS_HOOKS": "fakes.api_hooks", "PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "event=error" not in server.log.getvalue()
    if kind == "user":
        assert "annas" not in done.stdout
