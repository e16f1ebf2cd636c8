"""The XML of a job, as OBS reads and writes it: bytes in, a Job out, and back. No I/O.

Read and written as BSXML.pm's `clouduploadjob` with XML::Structured does it: attributes and
elements are interchangeable on input and come in any order; an unknown or repeated one is an
error. Stricter than that where OBS would take anything: an unknown state, a size that is no
number, a document type declaration (and with it every entity).
"""

import re
from collections.abc import Callable
from xml.parsers import expat

from clouduploader.errors import JobFileError
from clouduploader.model.job import Job, JobState

ROOT = "clouduploadjob"

# XML element: attribute of Job, in the order in which OBS writes them (BSXML.pm)
ELEMENTS = {
    "state": "state",
    "details": "details",
    "progress": "progress",
    "try": "try_",
    "created": "created",
    "user": "user",
    "target": "target",
    "project": "project",
    "repository": "repository",
    "package": "package",
    "arch": "arch",
    "filename": "filename",
    "size": "size",
    "pid": "pid",
}
NUMBERS = ("progress", "try", "created", "size", "pid")
NAMES = frozenset(("name", *ELEMENTS))

MAX_DIGITS = 18  # fits into a signed 64-bit number; image sizes and times stay far below
MAX_MARKS = 10_000  # of a kind, in what a client says: a job has some dozen; each costs time, a hundred thousand much
PIECE_BYTES = 65_536  # of that: other threads run between two
MAX_SHOWN_BYTES = 80  # of a line that is no XML, as libxml2 has it (xmlParserPrintFileContext)
NAME = re.compile(r"[0-9]{1,18}")  # OBS takes every file name of digits for a job

# All that XML 1.0 forbids, plus CR, which a parser turns into LF. What is allowed takes 2 ms to compile.
_NOT_XML = re.compile("\r\n?|[\x00-\x08\x0b\x0c\x0e-\x1f]|[\ud800-\udfff\ufffe\uffff]")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})


def parse(data: bytes) -> Job:
    """Read one job.

    Args:
        data: UTF-8, whatever an XML declaration says; OBS writes none.

    Raises:
        JobFileError: It is not XML, or not a job; the message says what and in which line.
    """
    fields = _fields(data)
    for required in ("name", "state"):
        if required not in fields:
            raise JobFileError(f"no '{required}'")
    name, state = fields["name"], fields["state"]
    if not NAME.fullmatch(name):
        raise JobFileError(f"the name '{name}' is not a number")
    if state not in _STATES:
        raise JobFileError(f"unknown state '{state}'")
    progress, try_, created, size, pid = [_number(fields, key) for key in NUMBERS]
    text = fields.get
    return Job(
        name=name,
        state=_STATES[state],
        details=text("details"),
        progress=progress,
        try_=try_,
        created=created,
        user=text("user"),
        target=text("target"),
        project=text("project"),
        repository=text("repository"),
        package=text("package"),
        arch=text("arch"),
        filename=text("filename"),
        size=size,
        pid=pid,
    )


def parse_skeleton(data: bytes) -> dict[str, str]:
    """Read what a client says about a job that it wants.

    Args:
        data: UTF-8, from the network.

    Returns:
        The text of each attribute and element that is there.

    Raises:
        JobFileError: It is not XML, or not a job; in OBS's words where it has some.
    """
    for mark, name in ((b"<", "tags"), (b"=", "attributes"), (b"&", "entities")):
        if data.count(mark) > MAX_MARKS:
            raise JobFileError(f"it has more than {MAX_MARKS} {name}, and is no job")
    try:
        return _read(data, expat.ParserCreate("utf-8"), piece_bytes=PIECE_BYTES)
    except expat.ExpatError as exc:
        raise JobFileError(_parser_error(data, exc)) from exc


def serialize(job: Job, *, indent: str = "") -> bytes:
    """Write one job, byte for byte as OBS does.

    Args:
        job: The job.
        indent: Blanks in front of each element, as in a list.

    Characters that no XML can hold (control characters, surrogates) become U+FFFD: one of them
    would make OBS lose the job. CR becomes LF, as every XML parser reads it.
    """
    lines = [f'{indent}<{ROOT} name="{escape(job.name)}">\n']
    for element, attribute in ELEMENTS.items():
        value = getattr(job, attribute)
        if value is not None:
            lines.append(f"{indent}  <{element}>{escape(str(value))}</{element}>\n")
    lines.append(f"{indent}</{ROOT}>\n")
    return "".join(lines).encode()


def parse_next(data: bytes) -> int:
    """Read the file `next`: the id that the next job will get.

    Raises:
        JobFileError: It holds anything else.
    """
    fields = _fields(data)
    if set(fields) != {"name"} or not NAME.fullmatch(fields["name"]):
        raise JobFileError("it does not hold the id of the next job, and nothing else")
    return int(fields["name"])


def serialize_next(number: int) -> bytes:
    """Write the file `next`."""
    return f'<{ROOT} name="{number}" />\n'.encode()


_STATES = {state.value: state for state in JobState}


def _number(fields: dict[str, str], key: str) -> int | None:
    text = fields.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise JobFileError(f"the {key} '{text[:40]}' is not a number")
    return int(text)


def escape(text: str) -> str:
    """Make a text fit for XML, as `serialize` does."""
    return _NOT_XML.sub(lambda match: "\n" if match[0][0] == "\r" else "\ufffd", text).translate(_ESCAPES)


def _fields(data: bytes) -> dict[str, str]:
    """Return the text of each attribute and element of the one job in `data`; an error names its line."""
    parser = expat.ParserCreate("utf-8")
    try:
        return _read(data, parser)
    except expat.ExpatError as exc:
        raise JobFileError(f"line {exc.lineno} is not XML: {expat.ErrorString(exc.code)}") from exc
    except JobFileError as exc:
        raise JobFileError(f"line {parser.CurrentLineNumber}: {exc.message}") from None


def _read(data: bytes, parser: expat.XMLParserType, *, piece_bytes: int | None = None) -> dict[str, str]:
    """See `_fields`; errors in the words of OBS's XML::Structured."""
    # Closures over local variables: `list` runs this for every job of the spool.
    fields: dict[str, str] = {}
    text: list[str] = []
    is_open = False  # inside the root
    current: str | None = None  # the element that we are in

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal is_open, current
        if current is not None:
            raise JobFileError(f"element '{current}' has subelements")
        if not is_open:
            if name != ROOT:
                raise JobFileError(f"document element must be '{ROOT}', was '{name}'")
            is_open = True
            for key, value in attributes.items():
                if key not in NAMES:
                    raise JobFileError(f"unknown attribute: {key}")
                fields[key] = value
            return
        if name not in NAMES:
            raise JobFileError(f"unknown element: {name}")
        if name in fields:
            raise JobFileError(f"element '{name}' must be singleton")
        if attributes:
            raise JobFileError(f"element '{name}' contains attributes")
        current = name
        parser.CharacterDataHandler = append

    def end(_name: str) -> None:
        nonlocal current
        if current is not None:
            fields[current] = "".join(text)
            text.clear()
            current = None
            parser.CharacterDataHandler = refuse

    def refuse(data: str) -> None:
        if not data.isspace():
            raise JobFileError(f"element '{ROOT}' contains content")

    append: Callable[[str], None] = text.append
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = refuse
    parser.StartDoctypeDeclHandler = _refuse_doctype
    if piece_bytes is not None:
        for at in range(0, len(data), piece_bytes):
            parser.Parse(data[at : at + piece_bytes], False)
        data = b""
    parser.Parse(data, True)
    return fields


def _parser_error(data: bytes, error: expat.ExpatError) -> str:
    """Return what is wrong with XML from the network, as libxml2 says it to OBS's clients where we know."""
    if not data.lstrip().startswith(b"<"):
        line = data.split(b"\n", 1)[0][:MAX_SHOWN_BYTES].decode("utf-8", "replace")
        return f":1: parser error : Start tag expected, '<' not found\n{line}\n^"
    return f":{error.lineno}: parser error : {expat.ErrorString(error.code)}"


def _refuse_doctype(*_declaration: object) -> None:
    raise JobFileError("a document type is declared, which no job has")
