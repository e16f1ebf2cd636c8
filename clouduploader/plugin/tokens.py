"""Access tokens that are kept for as long as they live."""

import json
import threading
from abc import ABC, abstractmethod

from clouduploader.errors import CredentialsError, http_error
from clouduploader.plugin.context import Context
from clouduploader.plugin.http import Answer
from clouduploader.util.frozen import frozen

RENEWAL_SECONDS = 300.0  # of life left: as long as a clock may be wrong
_REFUSED = range(400, 429)  # HTTP statuses of an authorization server that speak of the credentials


@frozen()
class _Token:
    text: str
    expires_at: float  # by the context's clock


class Tokens(ABC):
    """Gives tokens that live; its methods may be called by several threads. Uses the network.

    Args:
        ctx: Whose they are. Each is hidden.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._lock = threading.Lock()
        self._tokens: dict[str, _Token] = {}
        self._accepted: set[str] = set()

    @abstractmethod
    def ask(self, scope: str) -> tuple[str, float]:
        """Ask for a token; return it, and for how many seconds it lives.

        Raises:
            ClouduploaderError: There is no way in.
            Exception: Of an SDK; it goes through `Platform.translate`.
        """

    def get(self, scope: str) -> str:
        """Return a token for a service, another one where that of before is about to expire; see `ask`."""
        now = self._ctx.clock.monotonic()
        with self._lock:
            token = self._tokens.get(scope)
            if token is None or token.expires_at - now < RENEWAL_SECONDS:
                text, seconds = self.ask(scope)
                self._ctx.reporter.hide(text)
                token = self._tokens[scope] = _Token(text, now + seconds)
        return token.text

    def accepted(self, token: str) -> None:
        """Note that a service took a token."""
        self._accepted.add(token)

    def refused(self, token: str) -> bool:
        """Forget a token that a service refuses; return whether one took it before, so that it has expired."""
        with self._lock:
            self._tokens = {scope: kept for scope, kept in self._tokens.items() if kept.text != token}
        return token in self._accepted


def read(answer: Answer, *, subject: str, hint: str) -> tuple[str, float]:
    """Read what an authorization server answers (RFC 6749, 5): a token, and for how many seconds it lives.

    Args:
        answer: Its answer.
        subject: What was asked for, for the message.
        hint: What to do where the credentials are refused.

    Raises:
        CredentialsError: They are.
        ClouduploaderError: There is no token.
    """
    try:
        document = json.loads(answer.data)
        token = document.get("access_token")
        if answer.status == 200 and token and isinstance(token, str):
            return token, float(document["expires_in"])
        said = str(document.get("error_description") or document.get("error") or "").partition("\n")[0]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        said = ""
    if answer.status in _REFUSED:
        raise CredentialsError(f"{subject}: {said or f'HTTP status {answer.status}'}", hint=hint)
    raise http_error(answer.status, subject=subject, message=said)
