"""The routes by which a user signs in and out."""

import asyncio
import hmac
import json
import secrets
import time
from typing import Any

from aiohttp import web

from clouduploader.errors import ClouduploaderError
from clouduploader.server import page, replies, routing
from clouduploader.server.access import Right
from clouduploader.server.call import Handler, RouteCall
from clouduploader.server.replies import RefusalError
from clouduploader.server.routing import Parameter, Route
from clouduploader.server.signin import guard, openid, sessions
from clouduploader.server.signin.guard import SESSION_PATH, SIGN_IN_PATH, redirect
from clouduploader.server.signin.settings import Way

MAX_BODY_BYTES = 4096  # a token has 51
CALLBACK_PATH = "/ui/openid/callback"
OPENID_COOKIE = "clouduploader-openid"  # between the way to the provider and back
OPENID_PURPOSE = "openid"
OPENID_SECONDS = 600  # which may take so long
NONCE_BYTES = 32


async def show_sign_in(call: RouteCall) -> web.StreamResponse:
    """Answer with the page on which a user signs in."""
    _check_enabled(call)
    return page.answer_page("sign-in", "Sign in")


async def show_session(call: RouteCall) -> web.StreamResponse:
    """Answer with who is signed in, what requests that change something must have, and how to sign in, as JSON."""
    settings, principal = call.state.settings.sign_in, call.principal
    document: dict[str, Any] = {
        "role": principal.kind,
        "user": principal.user,
        "csrf": call.state.gate.sessions.csrf_token(principal.session) if principal.session else None,
        "ways": settings.ways,
        "provider": settings.openid.name if settings.openid else None,
    }
    return page.answer_json(document)


async def sign_in(call: RouteCall) -> web.StreamResponse:
    """Begin a session of the token in the body: JSON, so that no form of a foreign page can send it."""
    _check_enabled(call, Way.TOKEN)
    data = await call.state.read(call.request, limit_bytes=MAX_BODY_BYTES)
    try:
        text = json.loads(data)["token"].strip()
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as exc:
        raise RefusalError("the body is not a JSON object with a token") from exc
    token = await call.state.gate.check_token(call.request, text)
    if token.role.is_for_programs:
        raise RefusalError(f"the token of a {token.role} is for programs", status=403, is_coded=True)
    session = call.state.gate.sessions.begin(token.user, token.role, Way.TOKEN, token=token.id)
    return _begun(call, session, page.answer_json({"user": token.user, "role": token.role}))


async def sign_out(call: RouteCall) -> web.StreamResponse:
    """End the session."""
    session = call.principal.session
    if session is not None:
        await asyncio.to_thread(call.state.gate.sessions.end, session)
        call.state.log.tell("signed-out", user=session.user, session=session.id)
    answer = page.answer_json({})
    sessions.remove_cookie(call.request, answer)
    return answer


async def go_to_provider(call: RouteCall) -> web.StreamResponse:
    """Send the browser to the OpenID provider."""
    provider, seal = _provider(call), call.state.gate.sessions.seal
    state, nonce = secrets.token_urlsafe(NONCE_BYTES), secrets.token_urlsafe(NONCE_BYTES)
    try:
        url = await provider.authorization_url(
            redirect_uri=_callback(call.request),
            state=state,
            nonce=nonce,
            verifier=await asyncio.to_thread(seal.derive, OPENID_PURPOSE, state),
        )
    except RefusalError as exc:
        return _failed(call, "provider", exc.message)
    answer = redirect(url)
    begun = {"state": state, "nonce": nonce, "next": guard.own_page(call.found.value("next")),
             "exp": int(time.time()) + OPENID_SECONDS}  # fmt: skip
    text = seal.sign(OPENID_PURPOSE, begun)
    sessions.set_cookie(call.request, answer, text, base=OPENID_COOKIE, seconds=OPENID_SECONDS)
    return answer


async def return_from_provider(call: RouteCall) -> web.StreamResponse:
    """Begin a session of the user whom the OpenID provider has sent back."""
    provider, seal, request = _provider(call), call.state.gate.sessions.seal, call.request
    text = request.cookies.get(sessions.cookie_name(request, OPENID_COOKIE), "")
    begun = await asyncio.to_thread(seal.read, OPENID_PURPOSE, text)
    state = call.found.value("state") or ""
    if begun is None or not hmac.compare_digest(state.encode(), begun["state"].encode()):
        return _failed(call, "stale", "no sign-in was begun by this browser, or it took too long")
    if call.found.value("iss") not in (None, provider.settings.issuer):  # RFC 9207
        return _failed(call, "provider", "the answer is that of another issuer")
    if problem := call.found.value("error"):
        return _failed(call, "denied" if problem == "access_denied" else "provider", f"the provider says {problem}")
    try:
        claims = await provider.redeem(
            call.found.value("code") or "",
            redirect_uri=_callback(request),
            nonce=begun["nonce"],
            verifier=seal.derive(OPENID_PURPOSE, state),
        )
    except ClouduploaderError as exc:
        return _failed(call, "provider", exc.message)
    try:
        user, role = openid.identity(claims, provider.settings)
    except RefusalError as exc:
        return _failed(call, "unknown", exc.message)
    answer = _begun(call, call.state.gate.sessions.begin(user, role, Way.OPENID), redirect(begun["next"]))
    sessions.remove_cookie(request, answer, base=OPENID_COOKIE)
    return answer


def _check_enabled(call: RouteCall, way: Way | None = None) -> None:
    ways = call.state.settings.sign_in.ways
    if not ways or (way and way not in ways):
        raise RefusalError("there is no such sign-in here", status=404, is_coded=True)


def _provider(call: RouteCall) -> openid.Provider:
    _check_enabled(call, Way.OPENID)
    if not call.state.gate.is_private(call.request):
        raise RefusalError("no sign-in over http: others could read the session on its way", status=403, is_coded=True)
    provider = call.state.provider()
    assert provider is not None  # noqa: S101 the settings have one with that way
    return provider


def _callback(request: web.BaseRequest) -> str:
    return f"{request.scheme}://{request.headers.get('Host')}{CALLBACK_PATH}"


def _begun(call: RouteCall, session: sessions.Session, answer: web.Response) -> web.Response:
    call.state.log.tell(
        "signed-in",
        client=call.request.remote,
        user=session.user,
        role=session.role,
        way=session.way,
        token=session.token,
        session=session.id,
    )
    sessions.set_cookie(call.request, answer, call.state.gate.sessions.write(session))
    return answer


def _failed(call: RouteCall, problem: str, why: str) -> web.Response:
    """Log why a sign-in failed, and have the page say the kind of it."""
    call.state.log.tell("not-signed-in", client=call.request.remote, text=replies.without_directories(why))
    answer = redirect(f"{SIGN_IN_PATH}?problem={problem}")
    sessions.remove_cookie(call.request, answer, base=OPENID_COOKIE)
    return answer


OPENID_ANSWER = tuple(Parameter(name=name) for name in ("code", "state", "iss", "error"))
ROUTES: list[Route[Handler]] = [
    Route(
        path=SIGN_IN_PATH,
        handler=show_sign_in,
        right=Right.SIGN_IN,
        methods=routing.READING,
        parameters=(Parameter(name="next"), Parameter(name="problem")),  # read by its script
    ),
    Route(path=SIGN_IN_PATH, handler=sign_in, right=Right.SIGN_IN, methods=("POST",)),
    Route(path=SESSION_PATH, handler=show_session, right=Right.SIGN_IN, methods=routing.READING, is_polled=True),
    Route(path="/ui/sign-out", handler=sign_out, right=Right.SIGN_OUT, methods=("POST",)),
    Route(
        path="/ui/openid",
        handler=go_to_provider,
        right=Right.SIGN_IN,
        methods=("GET",),
        parameters=[Parameter(name="next")],
    ),
    Route(
        path=CALLBACK_PATH,
        handler=return_from_provider,
        right=Right.SIGN_IN,
        methods=("GET",),
        parameters=OPENID_ANSWER,
        takes_all=True,
    ),
]
