"""What stands between a browser and the routes: names, foreign pages, and sessions."""

import re

from aiohttp import web

from clouduploader.server import page, routing
from clouduploader.server.access import PRINCIPAL, Principal, Right
from clouduploader.server.network.origin import ORIGIN
from clouduploader.server.replies import RefusalError
from clouduploader.server.signin import sessions
from clouduploader.server.state import ServerState

SIGN_IN_PATH = "/ui/sign-in"
SESSION_PATH = "/ui/session"
_OWN_PAGE = re.compile(r"/ui(?:/[A-Za-z0-9_/-]*)?(?:\?[A-Za-z0-9_=&%.~+-]*)?")


def check_host(state: ServerState, request: web.BaseRequest) -> None:
    """Refuse a request that a page of another name was led to make, once there is something to steal.

    No name leads a browser to the Unix socket.

    Raises:
        RefusalError: Its `Host` is not one of ours.
    """
    settings = state.settings.sign_in
    host = request.headers.get("Host")
    is_remote = request[ORIGIN].uid is None  # no browser comes over the Unix socket
    if settings.ways and is_remote and host is not None and not settings.is_own_host(host):
        raise RefusalError("this service has another name: see `hosts` in its settings", status=421, is_coded=True)


def check_page(state: ServerState, request: web.BaseRequest) -> None:
    """Refuse a change that a foreign page asks for: it could kill jobs by the browser of a user who is allowed.

    Browsers say so (RFC 6454; Fetch Metadata Request Headers, W3C), and nothing else does. Without sign-in this
    server's own page only reads, and can't be told by its origin: the name of another site may have been made to lead
    here (DNS rebinding).

    Raises:
        RefusalError: One does.
    """
    if request.method in routing.READING:
        return
    is_from_a_page = "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none"
    if is_from_a_page and not _is_from_own_page(state, request):
        raise _no_page()


def check_change(state: ServerState, request: web.BaseRequest, principal: Principal, right: Right) -> None:
    """Refuse a request that changes something and was made by a page, but not in a session that the page knows of.

    Raises:
        RefusalError: It was.
    """
    if request.method in routing.READING or right is Right.SIGN_IN:
        return
    if principal.session is not None:
        if not state.gate.sessions.has_csrf_token(request, principal.session):
            text = f"the header {sessions.CSRF_HEADER} is missing or wrong"
            raise RefusalError(text, status=403, is_coded=True)
    elif _is_from_own_page(state, request):
        raise _no_page()


def keep_session(state: ServerState, request: web.BaseRequest, answer: web.StreamResponse) -> None:
    """Write the use of a session into its cookie, and remove that of one that is over."""
    principal, name = request.get(PRINCIPAL), sessions.cookie_name(request)
    if principal is None or answer.prepared or name not in request.cookies or name in answer.cookies:
        return
    session = principal.session
    if session is None:
        if principal.token is None and state.settings.sign_in.ways:
            sessions.remove_cookie(request, answer)
    elif _is_use(request) and (renewed := state.gate.sessions.renewed(session)):
        sessions.set_cookie(request, answer, state.gate.sessions.write(renewed))


def is_for_page(request: web.BaseRequest) -> bool:
    """Return whether a browser asks for one of the pages, whose user is to see the answer."""
    wants_page = request.method in routing.READING and "text/html" in request.headers.get("Accept", "")
    return wants_page and f"{request.path}/".startswith("/ui/")


def way_in(state: ServerState, request: web.BaseRequest) -> web.Response | None:
    """Return the answer that leads a browser without a session to the page on which to sign in; None for others."""
    if not (is_for_page(request) and state.settings.sign_in.ways):
        return None
    return redirect(f"{SIGN_IN_PATH}?next={request.path}" if own_page(request.path) == request.path else SIGN_IN_PATH)


def own_page(path: str | None) -> str:
    """Return where a user wanted to go, if that is a page of this server; else the first one."""
    return path if path and _OWN_PAGE.fullmatch(path) else "/ui"


def redirect(url: str) -> web.Response:
    """Return an answer that leads to another address, which may be another site's."""
    answer = page.answer(b"", page.HTML, status=303)
    answer.headers["Location"] = url
    return answer


def _is_from_own_page(state: ServerState, request: web.BaseRequest) -> bool:
    """Return whether the page of this very server sends a request, as the browser says; see `check_host`."""
    own = f"{request.scheme}://{request.headers.get('Host')}"
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    return bool(state.settings.sign_in.ways) and request.headers.get("Origin") == own and site == "same-origin"


def _is_use(request: web.BaseRequest) -> bool:
    """Return whether the user does something: what a page asks for by itself does not keep a session alive."""
    is_page = request.headers.get("Sec-Fetch-Mode") == "navigate"
    return is_page or request.method not in routing.READING or request.path == SESSION_PATH


def _no_page() -> RefusalError:
    return RefusalError("access denied for pages in browsers", status=403, is_coded=True)
