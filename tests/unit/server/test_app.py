"""Clients and pages that are refused."""

import pytest

from clouduploader.model.job import JobState
from clouduploader.server import operations, page


def test_other_networks_may_not_read(serve, make_spool):
    server = serve(make_spool(), allow="10.0.0.0/8")
    for route in (*operations.ROUTES, *page.ROUTES):
        assert server.ask("GET", route.path)[0].startswith("403")


@pytest.mark.parametrize(
    "headers",
    [{"Sec_Fetch_Site": "cross-site"}, {"Origin": "http://evil.test"}, {"Origin": "null"},
     {"Origin": "http://obs"}, {"Sec_Fetch_Site": "same-origin"}],
)  # fmt: skip
def test_page_can_not_kill_wherever_it_says_that_it_comes_from(serve, make_spool, headers):
    jobs = make_spool()
    server = serve(jobs)
    name = server.create()
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    status, _, _ = server.ask("POST", f"/cloudupload/{name}", b"cmd=kill", **form, **headers)
    assert status.startswith("403 ")
    assert jobs.read(name)[0].state is JobState.CREATED
    assert server.ask("GET", "/api/v1/jobs", **headers)[0] == "200 OK"
    status, _, _ = server.ask("POST", f"/cloudupload/{name}", b"cmd=kill", **form)
    assert status.startswith("200 ")
