"""Entries of a journal, what they come to, and the key that one upload's journal has. No I/O."""

import enum
import hashlib
import itertools
import json
from collections import OrderedDict
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
    """Sum up entries, the oldest first, in a time that grows with their number alone: a host may send what it likes."""
    began: Entry | None = None
    end: Entry | None = None
    objects: dict[CloudObject, Entry] = {}
    asked = _Questions()
    delivered: set[CloudObject] = set()
    both: set[CloudObject] = set()  # in `objects` and in `delivered`
    kept: set[CloudObject] = set()
    open_from = 0
    is_success = False
    for index, entry in enumerate(entries):
        match entry["what"]:
            case "begin":
                began, end, kept, is_success = entry, None, set(), False
            case "asked":
                asked.ask(entry)
            case "refused":
                asked.answer(entry)
            case "made":
                asked.answer(entry)
                objects[object_of(entry)] = entry
                both.update({object_of(entry)} & delivered)
            case "removed":
                objects.pop(object_of(entry), None)
            case "kept":
                kept.add(object_of(entry))
            case "end":
                end = entry
                found_again = [thing for thing in results_of(entry) if thing not in objects and thing not in delivered]
                for thing in found_again:  # the answer to its making was lost
                    asked.answer(fields_of(thing))
                delivered.update(results_of(entry))
                both.update(thing for thing in results_of(entry) if thing in objects)
                has_succeeded = entry.get("outcome") == AttemptOutcome.SUCCEEDED
                is_success = is_success or has_succeeded
                if has_succeeded:  # what it made and neither gave nor removed is left
                    for thing in both:
                        objects.pop(thing, None)
                    both = set()
                elif entry.get("outcome") == AttemptOutcome.CLEANED:
                    objects, asked, both = {}, _Questions(), set()
                if not (objects or asked or (has_succeeded and entry.get("shortfalls"))):
                    open_from = index + 1
    return JournalState(began, end, objects, asked.open(), frozenset(delivered), frozenset(kept), open_from, is_success)


class _Questions:
    """What was asked for, and not known what came of it."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], OrderedDict[int | str, tuple[int, Entry]]] = {}
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        """Whether there is something."""
        return bool(self._open)

    def ask(self, entry: Entry) -> None:
        """Add one; what is asked for with the same token is made once, whichever request arrives."""
        number = next(self._numbers)
        of_kind = self._open.setdefault(_kind(entry), OrderedDict())
        token = _word(entry, "token")
        of_kind.pop(token, None)
        of_kind[token or number] = (number, entry)

    def answer(self, entry: Entry) -> None:
        """Take out the first one of the same kind and region, if there is one."""
        kind = _kind(entry)
        if of_kind := self._open.get(kind):
            of_kind.popitem(last=False)
            if not of_kind:
                del self._open[kind]

    def open(self) -> tuple[Entry, ...]:
        """Return them, the oldest first."""
        found = sorted((pair for of_kind in self._open.values() for pair in of_kind.values()), key=lambda pair: pair[0])
        return tuple(entry for _, entry in found)


def _kind(entry: Entry) -> tuple[str, str]:
    return _word(entry, "kind"), _word(entry, "region")


def _word(entry: Entry, name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def object_of(entry: Entry) -> CloudObject:
    """Return the object that an entry `made` or `removed` is about."""
    return CloudObject(str(entry.get("kind")), str(entry.get("id")), str(entry.get("region") or ""))


def results_of(end: Entry) -> list[CloudObject]:
    """Return the objects that an `end` gave."""
    objects = end.get("objects")
    return [object_of(item) for item in objects if isinstance(item, dict)] if isinstance(objects, list) else []
