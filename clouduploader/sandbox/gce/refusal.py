"""How Google's APIs say no. Source: "Errors" of the JSON API of Cloud Storage; the same of Compute Engine."""

from typing import Any

from aiohttp import web

_STATUSES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}


class RefusedError(Exception):
    """A request is refused.

    Args:
        status: Of HTTP.
        reason: Google's word.
        message: A sentence.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


def response(status: int, reason: str, message: str) -> web.Response:
    """Make the answer."""
    error: dict[str, Any] = {
        "code": status,
        "message": message,
        "errors": [{"domain": "global", "reason": reason, "message": message}],
    }
    if status in _STATUSES:
        error["status"] = _STATUSES[status]
    return web.json_response({"error": error}, status=status)


CODES = {
    "accessNotConfigured": 403,
    "backendError": 503,
    "forbidden": 403,
    "internalError": 500,
    "quotaExceeded": 403,
    "rateLimitExceeded": 403,
    "tooManyRequests": 429,
}
"""Codes that a fault can have, each with its status."""
