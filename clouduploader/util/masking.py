"""Texts without the secrets in them, and the secrets that this process has read."""

from collections.abc import Iterable

MASK = "********"
_read: set[str] = set()


def hide(secret: str) -> None:
    """Let `masked` mask this string from now on; the empty string is nothing to hide."""
    if secret:
        _read.add(secret)


def masked(text: str) -> str:
    """Return a text without any secret that this process has read."""
    return without(text, list(_read))


def without(text: str, secrets: Iterable[str]) -> str:
    """Return a text with a mask in the place of each secret, also where that is written as Python's repr has it."""
    for form in sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def _forms(secret: str) -> tuple[str, ...]:
    """Return the forms in which a secret may stand in a text: as it is, in a repr, and in one with both quotes."""
    return secret, repr(secret)[1:-1], repr(f"{secret}'\"")[1:-4]
