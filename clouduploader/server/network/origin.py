"""Where a request comes from: what its connection tells, and what a proxy says of it that the settings trust.

Of what comes by another proxy nothing is known, so that it is a stranger's, and not private. A trusted one adds the
address that it sees to the end of X-Forwarded-For, so the last one that is no proxy's own is the client's, whatever
stands before it.
"""

import ipaddress

from aiohttp import web

from clouduploader.server.network import unix_socket
from clouduploader.server.settings import ServerSettings, plain_address
from clouduploader.util.frozen import frozen

FORWARDED_FOR, FORWARDED_PROTO = "X-Forwarded-For", "X-Forwarded-Proto"
RELAYED = (FORWARDED_FOR, "Forwarded", "Via", "X-Real-IP")  # what comes with one of these comes by some proxy
TLS_SCHEME = "https"


@frozen(kw_only=True)
class Origin:
    """Where a request comes from.

    Attributes:
        address: Of the client; None if a proxy does not tell it or is not believed, and over the Unix socket.
        uid: Of the client, over the Unix socket; else None, and by a proxy.
        client: See `client_of`; the proxy's if it does not tell the address.
        is_tls: Whether the client speaks TLS, with this server or with a proxy.
        is_private: Whether no other machine can read the request on its way.
        is_forwarded: Whether it came by a proxy.
        has_certificate: Whether the client has shown one, of an authority of `tls_client_ca`.
    """

    address: str | None
    uid: int | None
    client: str
    is_tls: bool
    is_private: bool
    is_forwarded: bool
    has_certificate: bool


ORIGIN = web.RequestKey("origin", Origin)


def client_of(address: str) -> str:
    """Return the client that an address belongs to: see `connections`."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))


def find(request: web.BaseRequest, settings: ServerSettings) -> Origin:
    """Find out where a request comes from.

    Raises:
        ConnectionResetError: The client was gone before it was accepted, and its address is not known.
    """
    transport = request.transport
    sock = transport and transport.get_extra_info("socket")
    uid = unix_socket.peer_uid(sock) if sock else None
    is_relayed = any(name in request.headers for name in RELAYED)
    if uid is not None:
        return Origin(
            address=None,
            uid=None if is_relayed else uid,  # it would be the proxy's
            client=unix_socket.client_name(uid),
            is_tls=False,
            is_private=not is_relayed,
            is_forwarded=False,
            has_certificate=False,
        )
    peer = request.remote
    if not peer:
        raise ConnectionResetError
    if not settings.is_proxy(peer):
        return Origin(
            address=None if is_relayed else peer,
            uid=None,
            client=client_of(peer),
            is_tls=request.secure,
            is_private=request.secure or (_is_loopback(peer) and not is_relayed),
            is_forwarded=False,
            has_certificate=bool(transport and transport.get_extra_info("peercert")),
        )
    address = _forwarded_address(request, settings)
    is_tls = _last(request, FORWARDED_PROTO).lower() == TLS_SCHEME
    is_safe_before = is_tls or (address is not None and _is_loopback(address))
    return Origin(
        address=address,
        uid=None,
        client=client_of(address or peer),
        is_tls=is_tls,
        is_private=(request.secure or _is_loopback(peer)) and is_safe_before,
        is_forwarded=True,
        has_certificate=False,  # that would be the proxy's
    )


def believe(request: web.Request, settings: ServerSettings) -> web.Request:
    """Return the request as it comes from its client: with `ORIGIN`, and with the client's address and scheme.

    Raises:
        ConnectionResetError: See `find`.
    """
    found = request[ORIGIN] = find(request, settings)
    if not request.remote:  # over the Unix socket
        return request.clone(remote=found.client)
    if not found.is_forwarded:
        return request
    return request.clone(remote=found.address or request.remote or "", scheme=TLS_SCHEME if found.is_tls else "http")


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(plain_address(address)).is_loopback


def _values(request: web.BaseRequest, name: str) -> list[str]:
    return [value.strip() for line in request.headers.getall(name, ()) for value in line.split(",")]


def _last(request: web.BaseRequest, name: str) -> str:
    return next(reversed(_values(request, name)), "")


def _forwarded_address(request: web.BaseRequest, settings: ServerSettings) -> str | None:
    """Return the last address that is no proxy's, or the first of all; None for none, or where no address stands."""
    address = None
    for value in reversed(_values(request, FORWARDED_FOR)):
        try:
            address = plain_address(value)
        except ValueError:
            return None
        if not settings.is_proxy(address):
            break
    return address
