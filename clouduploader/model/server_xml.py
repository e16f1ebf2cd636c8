"""The XML that a job server answers with, beside single jobs: lists of them, and small documents. No I/O.

The answers are OBS's (BSXML.pm: `clouduploadjoblist`, `status`, `dir`); whichever server sends them, they are
read as hostile. A document type, and with it every entity, is refused.
"""

from collections.abc import Iterator
from xml.parsers import expat

from clouduploader.errors import JobFileError
from clouduploader.model import job_xml
from clouduploader.model.job import Job

LIST_ROOT = "clouduploadjoblist"


def parse_list(data: bytes) -> Iterator[tuple[str, Job | JobFileError]]:
    """Read a list of jobs.

    Args:
        data: UTF-8, whatever an XML declaration says.

    Yields:
        The name of each job, and the job, or what is wrong with it. One that is wrong does not keep
        the others back; one without a name is left out, as it can't be asked for.

    Raises:
        JobFileError: It is not XML, or not a list.
    """
    names, starts = _jobs_of(data)
    for name, start, end in zip(names, starts, starts[1:], strict=False):
        try:
            job = job_xml.parse(data[start:end])
            yield job.name, job
        except JobFileError as exc:
            if job_xml.NAME.fullmatch(name):
                yield name, exc


def parse_reply(data: bytes, root: str) -> dict[str, str]:
    """Read a small document whose names are all different, such as `status`, or `directory` with one entry.

    Args:
        data: UTF-8, whatever an XML declaration says.
        root: The element that it must be.

    Returns:
        All attributes, and the text of all elements that have any, by their names.

    Raises:
        JobFileError: It is something else.
    """
    found: dict[str, str] = {}
    path: list[str] = []
    parser = expat.ParserCreate("utf-8")

    def start(name: str, attributes: dict[str, str]) -> None:
        if not path:
            _expect(root, name)
        path.append(name)
        for key, value in attributes.items():
            found.setdefault(key, value)

    def text(data: str) -> None:
        if not data.isspace():
            found[path[-1]] = found.get(path[-1], "") + data

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: path.pop()
    parser.CharacterDataHandler = text
    parser.buffer_text = True
    _parse(parser, data)
    return found


def _jobs_of(data: bytes) -> tuple[list[str], list[int]]:
    """Return the names in the list's elements, and where each begins; at last where the list ends.

    Up to the next one there is nothing behind a job but blanks, so it can be read as a file of its own.
    """
    names: list[str] = []
    starts: list[int] = []
    depth = 0
    parser = expat.ParserCreate("utf-8")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        if depth == 0:
            _expect(LIST_ROOT, name)
        elif depth == 1:
            starts.append(parser.CurrentByteIndex)
            names.append(attributes.get("name", ""))
        depth += 1

    def end(_name: str) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0:
            starts.append(parser.CurrentByteIndex)

    def text(data: str) -> None:
        if depth == 1 and not data.isspace():
            raise JobFileError("there is text between the jobs")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.buffer_text = True
    _parse(parser, data)
    return names, starts


def _expect(root: str, name: str) -> None:
    if name != root:
        raise JobFileError(f"it is a '{name}' and not a '{root}'")


def _parse(parser: expat.XMLParserType, data: bytes) -> None:
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as exc:
        raise JobFileError(f"line {exc.lineno} is not XML: {expat.ErrorString(exc.code)}") from exc


def _refuse_doctype(*_declaration: object) -> None:
    raise JobFileError("a document type is declared")
