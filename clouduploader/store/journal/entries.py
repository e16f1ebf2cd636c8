"""Entries of a journal, what they come to, and the key that one upload's journal has. No I/O."""

import enum
import hashlib
import json
from collections.abc import Iterable, Mapping

from clouduploader.plugin import CloudObject, JsonValue
from clouduploader.util.frozen import frozen

KEY_DIGITS = 32  # 128 bits: no two uploads meet by chance, and two keys fit into a client token of 64 characters
KEY_FORM = "clouduploader 1"  # part of what is hashed; another form of key must not meet this one

Entry = Mapping[str, JsonValue]


class AttemptOutcome(enum.StrEnum):
    """How a try ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    CLEANED = "cleaned"


def key_of(*, target: str, user: str, filename: str, values: Mapping[str, JsonValue]) -> str:
    """Make the key that all attempts of the same upload have in common.

    Args:
        target: Names the platform.
        user: Anything.
        filename: The image's real name.
        values: The target data, checked and decrypted, but for fields that are secret: the key is shown to all
            users who see a tag, so that it must not help to guess a password. Keys that the platform does not know
            (OBS's `user_id`) are not among them.

    Returns:
        32 hexadecimal digits: the first of the SHA-256 of the JSON array of all that, in ASCII, without blanks, keys
        sorted.
    """
    text = json.dumps([KEY_FORM, target, user, filename, values], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:KEY_DIGITS]


def is_key(text: str) -> bool:
    """Tell whether a text is what `key_of` gives."""
    return len(text) == KEY_DIGITS and not set(text) - set("0123456789abcdef")


def parse(data: bytes) -> tuple[Entry, ...]:
    """Return the entries in the bytes of a journal; what is none is passed over, whatever it is."""
    return tuple(entry for line in data.split(b"\n")[:-1] if (entry := _parse_line(line)))


def _parse_line(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, a number of 5000 digits; nested without end
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("what"), str) else None


def fields_of(thing: CloudObject) -> Mapping[str, JsonValue]:
    """Return an object as entries have it."""
    return {"kind": thing.kind, "id": thing.id, "region": thing.region}


@frozen()
class JournalState:
    """What a journal's entries come to.

    Attributes:
        began: The last `begin`, or None.
        end: The `end` of the last try, or None if it has none.
        objects: Made, not removed, and no result, with their entries.
        asked: Asked for, and not known what came of it.
        delivered: The results of tries that succeeded.
        kept: What the last try left on purpose.
        open_from: The index of the first entry that later tries must know.
        has_succeeded: Whether the last try succeeded; what it left may have been cleaned since.
    """

    began: Entry | None
    end: Entry | None
    objects: Mapping[CloudObject, Entry]
    asked: tuple[Entry, ...]
    delivered: frozenset[CloudObject]
    kept: frozenset[CloudObject]
    open_from: int
    has_succeeded: bool

    @property
    def has_leftovers(self) -> bool:
        """Whether something may be left in the cloud."""
        return bool(self.objects or self.asked)

    @property
    def is_by_hand(self) -> bool:
        """Whether a person started the last try for himself."""
        return bool(self.began and self.began.get("by_hand"))

    @property
    def is_open(self) -> bool:
        """Whether the last try had no end, or one that left something."""
        return self.began is not None and (self.end is None or self.has_leftovers)


def state_of(entries: Iterable[Entry]) -> JournalState:
    """Sum up entries, the oldest first."""
    began: Entry | None = None
    end: Entry | None = None
    objects: dict[CloudObject, Entry] = {}
    asked: list[Entry] = []
    delivered: set[CloudObject] = set()
    kept: set[CloudObject] = set()
    open_from = 0
    is_success = False
    for index, entry in enumerate(entries):
        match entry["what"]:
            case "begin":
                began, end, kept, is_success = entry, None, set(), False
            case "asked":
                asked = [question for question in asked if not _is_repeated(question, entry)]
                asked.append(entry)
            case "refused":
                _answer(asked, entry)
            case "made":
                _answer(asked, entry)
                objects[object_of(entry)] = entry
            case "removed":
                objects.pop(object_of(entry), None)
            case "kept":
                kept.add(object_of(entry))
            case "end":
                end = entry
                found_again = [thing for thing in results_of(entry) if thing not in objects and thing not in delivered]
                for thing in found_again:  # the answer to its making was lost
                    _answer(asked, fields_of(thing))
                delivered.update(results_of(entry))
                has_succeeded = entry.get("outcome") == AttemptOutcome.SUCCEEDED
                is_success = is_success or has_succeeded
                if has_succeeded:  # what it made and neither gave nor removed is left
                    objects = {thing: made for thing, made in objects.items() if thing not in delivered}
                elif entry.get("outcome") == AttemptOutcome.CLEANED:
                    objects, asked = {}, []
                if not (objects or asked or (has_succeeded and entry.get("shortfalls"))):
                    open_from = index + 1
    return JournalState(began, end, objects, tuple(asked), frozenset(delivered), frozenset(kept), open_from, is_success)


def _is_repeated(question: Entry, entry: Entry) -> bool:
    """Tell whether two requests ask for the same thing, which is made once, whichever of them arrives."""
    same = all(question.get(name) == entry.get(name) for name in ("kind", "region", "token"))
    return same and bool(entry.get("token"))


def _answer(asked: list[Entry], entry: Entry) -> None:
    for index, question in enumerate(asked):
        if (question.get("kind"), question.get("region")) == (entry.get("kind"), entry.get("region")):
            del asked[index]
            return


def object_of(entry: Entry) -> CloudObject:
    """Return the object that an entry `made` or `removed` is about."""
    return CloudObject(str(entry.get("kind")), str(entry.get("id")), str(entry.get("region") or ""))


def results_of(end: Entry) -> list[CloudObject]:
    """Return the objects that an `end` gave."""
    objects = end.get("objects")
    return [object_of(item) for item in objects if isinstance(item, dict)] if isinstance(objects, list) else []
