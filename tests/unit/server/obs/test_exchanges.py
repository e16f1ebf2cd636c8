"""Requests that OBS's own server answered, sent to ours."""

import contextlib
import fcntl
import os
import re
from pathlib import Path

import pytest

from clouduploader.model import job_xml
from clouduploader.model.job import JobState

PATH = Path(__file__).parents[3] / "data" / "server" / "exchanges.txt"
EXCHANGES = [
    (f"{number}. {title}: {request.splitlines()[0]}", request, answer)
    for number, (title, request, answer) in enumerate(
        re.findall(r"^=== (.*?)\n(.*?)\n\n(HTTP/.*?)\n*(?=^===|\Z)", PATH.read_text(), re.DOTALL | re.MULTILINE)
    )
]
OTHERWISE = {
    "command=kill": '<status code="ok" />',  # the wiki's form
    "GET /cloudupload/next": "404",  # the counter is no job
    "?name=99&name=1&name=1": "Content-Length: 487\n",  # a job is in a list once, however often it is named
}
"""Where we answer otherwise by intention: in the request, and in our answer."""
DIRECTORIES = re.compile(r"PREFIX/(?:\w+/)*")
TIMES = re.compile(r"(?<=<created>)\d+(?=<)|(?<=time=\")\d+")
LOG = "stub: start job 19\nstub: this is stderr\nstub: tick 1\nstub: tick 2\n"
LOGS = {
    "19": LOG,
    "22": "stub: start job 22\nstub: this is stderr\nstub: got TERM\n",
    "52": "stub: start job 52\nstub: this is stderr\n",
    "61": next(it[2] for it in EXCHANGES if it[1] == "GET /cloudupload/61/_log").partition("\n\n")[2] + "\n",
}


def prepare(bsdir, title, request, answer, stack):
    """Make the spool that the recording was made on, as far as this exchange looks at it."""
    spool = bsdir / "cloudupload"
    done = spool / "done"
    done.mkdir(parents=True)
    (spool / "next").write_text('<clouduploadjob name="47" />\n')
    for xml in re.findall(r"^ *<clouduploadjob name.*?</clouduploadjob>", answer, re.DOTALL | re.MULTILINE):
        xml = re.sub(r"^  ", "", xml, flags=re.MULTILINE) if xml.startswith(" ") else xml
        job = job_xml.parse(xml.encode())
        if request.startswith("POST /cloudupload\n"):
            (spool / "next").write_text(f'<clouduploadjob name="{job.name}" />\n')
        else:
            ((done if job.state.is_final else spool) / job.name).write_text(xml + "\n")
    name = (re.match(r"\w+ /cloudupload/(\d+)", request) or [None, None])[1]
    is_missing = "404" in answer.splitlines()[0] or "No such file" in answer.splitlines()[0]
    state = None
    if name and request.startswith("PUT") and not is_missing:
        state = "scheduled" if "not in created" in answer else "created"
    elif (
        name
        and "kill" in request
        and not is_missing
        and "unknown parameter 'cmd'" not in answer
        and "<state>" not in answer
    ):
        state = "scheduled"
    elif name and "_log" in request and "404" not in answer:
        is_uploading = "while" in title or "chunked" in answer
        state = "uploading" if is_uploading else "scheduled" if "limits" in title else "failed"
    elif request.startswith("HEAD"):
        (done / "1").write_text(
            max((x for _, r, x in EXCHANGES if r == "GET /cloudupload/1"), key=len).partition("\n\n")[2]
        )
    if state:
        xml = f'<clouduploadjob name="{name}">\n  <state>{state}</state>\n  <size>70000</size>\n</clouduploadjob>\n'
        ((done if state == "failed" else spool) / name).write_text(xml)
        if name in LOGS and "_log" in request:
            log = LOGS[name]
            if name == "19" and "?" in request and state == "uploading":
                log = LOG[:40] if "start=0" in request else LOG[:53]
            ((done if state == "failed" else spool) / f"{name}.log").write_text(log)
    if "_pubkey" in request and "BEGIN" in answer:
        (bsdir.parent / "etc" / "cloudupload" / "_pubkey").write_text(answer.partition("\n\n")[2] + "\n")
    if "workerstatus" in request:
        (bsdir / "run").mkdir()
        worker = stack.enter_context((bsdir / "run" / "bs_clouduploadworker.lock").open("w"))
        fcntl.flock(worker, fcntl.LOCK_EX)


def as_bytes(request):
    """The request as curl sent it."""
    first, *lines = request.split("\n")
    headers, body = {}, b""
    for line in (line.strip() for line in lines):
        if re.match(r"[A-Z][\w-]+:", line):
            headers.update([re.split(r": *", line, maxsplit=1)])
        else:
            body = bytes({"@PREFIX/tmp/short": 69_999}.get(line, 70_000)) if line.startswith("@") else line.encode()
    headers = {name: value for name, value in headers.items() if value}
    if body and not first.startswith("PUT"):
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")  # curl's own
    if headers.get("Transfer-Encoding") == "chunked":
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    elif body:
        headers["Content-Length"] = str(len(body))
    head = [f"{first} HTTP/1.1", "Host: obs", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*head, "", ""]).encode() + body


def as_text(answer):
    """An answer with its chunks put together, and no moment in it."""
    head, _, body = answer.decode().replace("\r\n", "\n").partition("\n\n")
    if "chunked" in head:
        body = "".join(re.findall(r"^[0-9a-f]+\n(.*?)(?=\n[0-9a-f]+\n)", body, re.DOTALL | re.MULTILINE))
    return TIMES.sub("0", f"{head}\n\n{body}").rstrip("\n")


def expected(answer):
    """The recorded answer as ours must be: OBS shows where its files lie, we their names only."""
    head, _, body = DIRECTORIES.sub("", answer).partition("\n\n")
    body = body.removesuffix("  (no newline at end)")
    if "PREFIX" in answer or "pid=" in body:  # which stand for something of another length
        body = re.sub(r'(?<=pid=")\d+', str(os.getpid()), body)
        length = len(body) + 1
        head = re.sub(r"(?<=Content-Length: )\d+", str(length), head)
    return TIMES.sub("0", f"{head}\n\n{body}").rstrip("\n")


def send(server, jobs, request):
    """Send it; if that makes us follow a log, the job ends once all of it was seen."""
    if request != "GET /cloudupload/19/_log" or jobs.done_path("19").exists():
        return server.send(as_bytes(request))
    with server.connect() as client:
        client.sendall(as_bytes(request))
        answer = b""
        while LOG.encode() not in answer:
            answer += client.recv(65_536)
        with jobs.lock("19") as locked:
            locked.archive(locked.job.ended(JobState.SUCCEEDED, None))
        return answer + b"".join(iter(lambda: client.recv(65_536), b""))


@pytest.mark.parametrize(("request_text", "answer"), [it[1:] for it in EXCHANGES], ids=[it[0] for it in EXCHANGES])
def test_answer_is_that_of_obs(make_spool, serve, request_text, answer, request):
    if "<state>receiving</state>" in answer:  # by a process that lives, or the server fails it
        answer = answer.replace("<pid>23561</pid>", "<pid>1</pid>").replace("Length: 390", "Length: 386")
    jobs = make_spool()
    server = serve(jobs)
    with contextlib.ExitStack() as stack:
        prepare(jobs.directory.parent, request.node.callspec.id, request_text, answer, stack)
        given = as_text(send(server, jobs, request_text))

    wanted = expected(answer)
    if ours := next((ours for part, ours in OTHERWISE.items() if part in request_text), None):
        assert ours in given
        assert given != wanted
    else:
        assert given == wanted


def test_all_exchanges_were_read():
    assert len(EXCHANGES) == PATH.read_text().count("\n=== ")
    assert len(EXCHANGES) > 80
