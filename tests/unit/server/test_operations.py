"""The routes for operators."""

from clouduploader.server import operations, page
from clouduploader.server.access import Right
from clouduploader.server.obs import routes

KEPT = (Right.KEEP_ACCOUNTS, Right.KEEP_TOKENS, Right.SEE_SERVICE)
"""What the backend, which the test is, may not see."""


def test_routes_are_for_reading_and_not_those_of_obs(serve, make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", log=b"begun")
    server = serve(jobs)
    obs = {route.path for route in routes.ROUTES}
    for route in (*operations.ROUTES, *page.ROUTES):
        assert route.path not in obs
        path = route.path.replace("$job", "1").replace("$name", "1").replace("$file", "ui.css")
        assert server.ask("POST", path, b"")[0] == f"400 unknown request  POST {path}"
        status, _, body = server.ask("HEAD", path)
        assert status[:3] in ("200", "503") or (route.right in KEPT and status.startswith("403"))
        assert body == b""
