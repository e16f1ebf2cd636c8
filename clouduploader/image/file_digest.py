"""The SHA-256 of an image in a file beside it: lines of sha256sum(1), or signed as OBS publishes them."""

import re
from pathlib import Path

from clouduploader.errors import ImageError
from clouduploader.image import sidecar

SUFFIX = ".sha256"
MAX_BYTES = 1 << 20  # ours: room for ten thousand lines; sums of a whole repository are no larger
_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?:[ \t]+\*?(.*))?")  # sha256sum(1); `\` before a name with escapes
_TAGGED = re.compile(r"SHA256 \((.*)\) = ([0-9a-fA-F]{64})")  # sha256sum --tag, and the BSDs
_SIGNED = "-----BEGIN PGP SIGNED MESSAGE-----"  # RFC 9580, section 7
_SIGNATURE = "-----BEGIN PGP SIGNATURE-----"


def find(path: Path, filename: str) -> str | None:
    """Find the SHA-256 that `FILENAME.sha256` gives for an image.

    A signature around the lines is removed and not checked: that would take a key that the caller trusts.

    Args:
        path: The image; what lies beside it, or beside what it links to, is looked at.
        filename: Its real base name.

    Returns:
        64 lower-case hexadecimal digits; None if there is no such file.

    Raises:
        ImageError: It is no list of checksums, promises two different ones, or has those of other files.
        LocalIOError: It can't be read.
    """
    found = sidecar.find(path, [filename + SUFFIX])
    if found is None:
        return None
    return parse(sidecar.read(found, MAX_BYTES), filename, where=str(found))


def parse(data: bytes, filename: str, *, where: str) -> str:
    """Parse such a file; a checksum without a name, or the only one, is for the image that it lies beside.

    OBS publishes images under a second name without the build's number, whose `.sha256` has the first.

    Args:
        data: Its bytes.
        filename: The image's real base name.
        where: Names it in errors.

    Raises:
        ImageError: See `find`.
    """
    lines = _unsigned(data.decode("utf-8", "replace").splitlines(), where)
    if not lines:
        raise ImageError(f"{where} is empty", hint="Remove it, or replace it by a whole one.")
    sums: set[str] = set()
    others: set[str] = set()
    for number, line in lines:
        entry = _entry(line)
        if entry is None:
            raise ImageError(
                f"line {number} of {where} is not a SHA-256 and a file name", hint="Remove it, or replace it."
            )
        digest, name = entry
        (sums if name in (None, filename) else others).add(digest)
    if len(sums) > 1:
        raise ImageError(f"{where} promises different checksums for {filename}")
    if not sums and len(others) > 1:
        raise ImageError(
            f"{where} has checksums of other files only", hint="Remove it, or replace it by the image's own."
        )
    return next(iter(sums or others))


def check(filename: str, found: str, promised: str) -> None:
    """Hold the digest of an image against the one that was promised; both are SHA-256 in hex.

    Raises:
        ImageError: They differ.
    """
    if found != promised.lower():
        raise ImageError(
            f"{filename} is not the file that was promised: its SHA-256 is {found}, not {promised.lower()}",
            hint="Get the file anew, or the digest.",
        )


def _entry(line: str) -> tuple[str, str | None] | None:
    """Return digest and base name of a line; None if it is anything else."""
    if tagged := _TAGGED.fullmatch(line):
        digest, name = tagged[2], tagged[1]
    elif plain := _LINE.fullmatch(line):
        digest, name = plain[1], plain[2]
    else:
        return None
    return digest.lower(), name.rpartition("/")[2] if name else None


def _unsigned(lines: list[str], where: str) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers; of a signed text those that are signed."""
    numbered = list(enumerate(map(str.strip, lines), 1))
    texts = [line for _, line in numbered]
    if _SIGNED in texts:
        try:
            begin = texts.index("", texts.index(_SIGNED))  # a blank line ends the headers
            end = texts.index(_SIGNATURE, begin)
        except ValueError:
            raise ImageError(f"{where} is a signed text that is cut off") from None
        numbered = [(number, line.removeprefix("- ")) for number, line in numbered[begin:end]]  # dash-escaped
    return [(number, line) for number, line in numbered if line]
