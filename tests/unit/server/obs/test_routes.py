"""What each route takes and answers, beyond the recorded exchanges."""

import json
import re
import urllib.parse

import pytest

from clouduploader.model import server_xml
from clouduploader.model.job import Details, Job, JobState
from clouduploader.server import job_changes, replies
from clouduploader.server.obs import routes

WIKI = {"project": "p", "package": "k:Cloud", "repository": "r", "arch": "x86_64", "user": "tom", "target": "ec2",
        "filename": "a.raw.xz", "size": "5"}  # fmt: skip


def wiki(**changes):
    fields = {name: value for name, value in {**WIKI, **changes}.items() if value is not None}
    return f"/cloudupload?{urllib.parse.urlencode(fields)}"


@pytest.fixture
def jobs(make_spool, make_job):
    """A spool with a job in each stage."""
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.SUCCEEDED, log=b"all of it\n", details="ami-1")
    make_job(jobs, "2", state=JobState.SCHEDULED, size=5)
    make_job(jobs, "10", state=JobState.UPLOADING, log=b"begun\n", pid=1)
    (jobs.directory / "next").write_text('<clouduploadjob name="11" />\n')
    return jobs


@pytest.mark.parametrize(
    "target",
    ["/", "/cloudupload", "/cloudupload?name=2&name=1", "/cloudupload/1", "/cloudupload/1/_log",
     "/cloudupload/1/_log?start=4&end=6", "/cloudupload/1/_log?view=entry", "/workerstatus", "/cloudupload/_pubkey",
     "/cloudupload/4711", "/cloudupload/4711/_log", "/cloudupload?color=red"],
)  # fmt: skip
def test_head_is_get_without_body(serve, jobs, target):
    server = serve(jobs)
    status, headers, answer = server.ask("GET", target)
    assert answer
    assert server.ask("HEAD", target) == (status, headers, b"")


def test_head_of_a_growing_log_does_not_wait(serve, jobs):
    status, headers, answer = serve(jobs).ask("HEAD", "/cloudupload/10/_log")
    assert (status, answer) == ("200 OK", b"")
    assert "Content-Type: text/plain" in headers


def test_wiki_form_makes_a_job_that_waits_for_its_image(serve, jobs):
    server = serve(jobs)
    data = json.dumps({"arn": "ä"}).encode()
    status, _, answer = server.ask("POST", wiki(), data, Content_Type="application/json")
    assert status == "200 OK"
    job, _ = jobs.read("11")
    assert (job.state, job.details) == (JobState.CREATED, Details.WAITING_FOR_IMAGE)
    assert (job.package, job.size) == ("k:Cloud", 5)
    assert answer == jobs.job_path("11").read_bytes()
    assert jobs.data_path("11").read_bytes() == data

    assert server.ask("PUT", "/cloudupload/11", b"image")[0] == "200 OK"
    assert jobs.file_path("11").read_bytes() == b"image"
    assert server.ask("POST", "/cloudupload/11?command=kill")[2] == b'<status code="ok" />\n'
    assert jobs.read("11")[0].details == "killed"
    assert {path.name for path in jobs.directory.iterdir()} == {"2", "10", "10.log", "next", "done"}


@pytest.mark.parametrize(
    ("changes", "data", "complaint"),
    [({"size": None}, b"{}", "parameter 'size' is missing"), ({"filename": None}, b"{}", "'filename' is missing"),
     ({"user": ""}, b"{}", "user is empty"), ({"target": ""}, b"{}", "target is empty"),
     ({"size": "-1"}, b"{}", "not a number  '-1'"), ({"size": "9" * 19}, b"{}", "size is too large"),
     ({}, b"[]", "not a JSON object"), ({}, b"", "not a JSON object"), ({}, b"[" * 100_000, "not a JSON object"),
     ({"filename": "ä" * 1025}, b"{}", "filename has more than 1024 characters"),
     ({}, b'{"a": "%s"}' % (b"x" * (1 << 20)), "the target data are longer than 1048576 bytes"),
     ({"color": "red"}, b"{}", "unknown parameter 'color'"), ({"user": None}, b"{}", "unknown parameter")],
)  # fmt: skip
def test_wiki_form_that_is_wrong_makes_no_job(serve, jobs, changes, data, complaint):
    status, _, answer = serve(jobs).ask("POST", wiki(**changes), data)
    assert status.startswith("400 ")
    assert complaint in status
    assert b'<status code="400">' in answer
    assert {path.name for path in jobs.directory.iterdir()} == {"2", "10", "10.log", "next", "done"}
    assert b'"11"' in (jobs.directory / "next").read_bytes()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [({"user": "u" * 1025}, "user has more than 1024 characters"),
     ({"details": "00" * ((1 << 20) + 1)}, "the target data are longer than 1048576 bytes"),
     ({"details": "7"}, "details are not hexadecimal")],
)  # fmt: skip
def test_skeleton_that_no_upload_could_use_makes_no_job(serve, jobs, fields, complaint):
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in {**WIKI, "details": "7b7d", **fields}.items())
    status, _, _ = serve(jobs).ask("POST", "/cloudupload", f"<clouduploadjob>{inner}</clouduploadjob>".encode())
    assert status == f"400 {complaint}"
    assert b'"11"' in (jobs.directory / "next").read_bytes()


@pytest.mark.parametrize(
    "name", ["next", "done", "_pubkey", "10.log", ".2.new", "2.data", "..", "%2e%2e", "1%0a", "%D9%A1"]
)
def test_what_is_no_job_is_neither_shown_nor_sent_nor_killed(serve, jobs, name):
    before = {path: path.is_file() and path.read_bytes() for path in jobs.directory.rglob("*")}
    server = serve(jobs)
    name = urllib.parse.quote(name, safe="%")
    for method, target in (("GET", ""), ("GET", "/_log"), ("POST", "?cmd=kill"), ("POST", "?command=kill")):
        status = server.ask(method, f"/cloudupload/{name}{target}")[0]
        assert status.startswith("40")
    assert server.ask("PUT", f"/cloudupload/{name}", b"12345")[0].startswith("400 ")
    assert {path: path.is_file() and path.read_bytes() for path in jobs.directory.rglob("*")} == before


def test_text_that_would_break_the_xml_is_cleaned(serve, jobs):
    server = serve(jobs)
    _, _, answer = server.ask("POST", wiki(user="a\x1b[1m\x00\r\nb", filename="<&>\ufffe"), b"{}")
    job, _ = jobs.read("11")
    assert (job.user, job.filename) == ("a\ufffd[1m\ufffd\nb", "<&>\ufffd")
    assert server.ask("GET", "/cloudupload/11")[2] == answer


def test_clients_of_other_networks_are_refused_everything(serve, jobs):
    server = serve(jobs, allow="192.0.2.0/24 2001:db8::/32")
    for request in ("GET /", f"POST {wiki()}", "PUT /cloudupload/2", "POST /cloudupload/2?cmd=kill"):
        status, _, answer = server.ask(*request.split(), b"{}")
        assert status == "403 access denied for 127.0.0.1"
        assert b"<details>403 access denied for 127.0.0.1</details>" in answer
    assert jobs.read("2")[0].state is JobState.SCHEDULED


@pytest.mark.parametrize("request_line", ["PUT /cloudupload/2", "POST /cloudupload/10?cmd=kill", "POST /cloudupload/1"])
def test_unknown_expectation_is_refused_before_a_job_is_touched(serve, jobs, request_line):
    before = {path: path.is_file() and path.read_bytes() for path in jobs.directory.rglob("*")}
    server = serve(jobs)
    assert server.ask(*request_line.split(), b"image", Expect="the spanish inquisition")[0] == "417 unknown expect"
    assert {path: path.is_file() and path.read_bytes() for path in jobs.directory.rglob("*")} == before
    assert server.ask("GET", "/", Expect="the spanish inquisition")[0] == "200 OK"


@pytest.mark.parametrize("target", ["*", "obs:443"])
def test_target_that_is_no_path_is_answered_as_any_other(serve, jobs, target):
    method = "OPTIONS" if target == "*" else "CONNECT"
    server = serve(jobs)
    status, headers, _ = server.ask(method, target)
    assert status == f"501 Bad method  {method}"
    assert "Connection: close" in headers
    assert serve(jobs, allow="192.0.2.0/24").ask(method, target)[0] == "403 access denied for 127.0.0.1"


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", "501"),
     (b"GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n", "400"),
     (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
     (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9_000 + b"\r\n\r\n", "400"),
     (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 101 + b"\r\n", "400"),
     (b"PUT /cloudupload/2 HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400"),
     (b"PUT /cloudupload/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
     (b"BREW / HTTP/1.1\r\n\r\n", "501"), (b"GET http://obs/ HTTP/1.1\r\nHost: obs\r\n\r\n", "501"),
     (b"GET / HTTP/1.1\r\n\r\n", "400")],
)  # fmt: skip
def test_what_is_not_http_is_refused_in_xml(serve, jobs, data, status):
    answer = serve(jobs).send(data)
    assert re.match(rf"HTTP/1\.[01] {status} ".encode(), answer)
    head, _, xml = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: text/xml" in head
    assert xml.startswith(f'<status code="{status}">'.encode())
    assert xml.endswith(b"</status>\n")
    assert f"Content-Length: {len(xml)}".encode() in head


def test_answer_to_endless_nonsense_has_a_short_first_line(serve, jobs):
    server = serve(jobs)
    status, _, answer = server.ask("GET", f"/{'x' * 100_000}")
    assert len(status) == len("400 ") + 1000
    assert b"x" * 100_000 in answer
    answer = server.ask("POST", "/cloudupload", b"x" * 1_000_000, Content_Type="text/xml")[2]
    assert answer.endswith(b"not found\n" + b"x" * 80 + b"\n^</details>\n</status>\n")


def test_job_that_cannot_be_read_is_refused_in_xml(serve, jobs):
    jobs.done_path("1").unlink()
    jobs.done_path("1").symlink_to("1")  # a loop
    status, _, answer = serve(jobs).ask("GET", "/cloudupload/1")
    assert status.startswith("400 ")
    assert b"Too many levels of symbolic links" in answer


@pytest.mark.parametrize("headers", [{}, {"Transfer_Encoding": "chunked"}])
def test_body_that_can_be_no_job_is_refused(serve, jobs, headers):
    server = serve(jobs)
    data = b"<clouduploadjob>" + b" " * job_changes.MAX_SKELETON_BYTES
    if headers:
        data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
    status, _, _ = server.ask("POST", "/cloudupload", data, **headers)
    assert status == f"413 the body is longer than {job_changes.MAX_SKELETON_BYTES} bytes"
    with server.connect() as client:  # it says how long it is, and is not waited for
        client.sendall(b"POST /cloudupload HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")
    assert server.create() == "11"


@pytest.mark.parametrize(
    ("content", "what"),
    [("<!---->" * 10_001, "tags"), ("<?a?>" * 10_001, "tags"), (f"<user>{'&amp;' * 10_001}</user>", "entities")],
)
def test_skeleton_that_would_take_long_to_read_is_refused_before(serve, jobs, content, what):
    status, _, _ = serve(jobs).ask("POST", "/cloudupload", f"<clouduploadjob>{content}</clouduploadjob>".encode())
    assert status == f"400 it has more than 10000 {what}, and is no job"


def test_skeleton_with_many_attributes_is_refused(serve, jobs):
    attributes = " ".join(f'a{number}=""' for number in range(10_001))
    status, _, _ = serve(jobs).ask("POST", "/cloudupload", f"<clouduploadjob {attributes}/>".encode())
    assert status == "400 it has more than 10000 attributes, and is no job"


def test_largest_target_data_are_taken_in_both_forms(serve, jobs):
    server = serve(jobs)
    data = b'{"a": "%s"}' % (b"x" * ((1 << 20) - 9))
    fields = dict.fromkeys(["user", "project", "package", "repository", "arch", "filename"], "&quot;" * 1024)
    assert server.create(details=data.hex(), **fields) == "11"
    assert server.ask("POST", wiki(), data)[0] == "200 OK"
    assert jobs.data_path("11").read_bytes() == jobs.data_path("12").read_bytes() == data


def test_job_that_is_named_often_is_listed_once(serve, jobs):
    server = serve(jobs)
    once = server.ask("GET", "/cloudupload?name=10&name=1")[2]
    assert server.ask("GET", f"/cloudupload?name=10{'&name=1' * 18_000}")[2] == once
    assert once.count(b"<clouduploadjob ") == 2
    answer = server.ask("GET", f"/workerstatus?arch=clouduploadserver{'&arch=clouduploadserver' * 9}")[2]
    assert answer.count(b'<daemon type="clouduploadserver"') == 1


def test_long_list_goes_out_while_it_is_made(serve, make_job, jobs):
    """In pieces, as its length is not known before; what OBS's clients know, and what is in it, is the same."""
    for number in range(100, 150):
        make_job(jobs, str(number), state=JobState.FAILED if number % 2 else JobState.CREATED, user='"' * 5000)
    server = serve(jobs)
    status, headers, answer = server.ask("GET", "/cloudupload")
    assert (status, headers[0], headers[1]) == ("200 OK", "Content-Type: text/xml", "Transfer-Encoding: chunked")
    assert len(answer) > routes.MAX_WHOLE_BYTES
    found = [name for name, job in server_xml.parse_list(answer) if isinstance(job, Job)]
    assert found == sorted(["1", "2", "10", *map(str, range(100, 150))])
    assert server.ask("HEAD", "/cloudupload")[::2] == (status, b"")
    old = server.send(b"GET /cloudupload HTTP/1.0\r\nHost: obs\r\n\r\n")
    assert old.partition(b"\r\n\r\n")[2] == answer
    assert server.ask("GET", "/cloudupload")[2] == answer  # by what was kept


def test_requests_are_shown_shortened_where_all_are(serve, jobs):
    server = serve(jobs)
    with server.connect() as client:
        client.sendall(b"GET /cloudupload/10/_log?start=" + b"0" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(10)
        for path in ("/serverstatus", "/ajaxstatus"):
            answer = server.ask("GET", path)[2]
            assert b"/cloudupload/10/_log?start=000" in answer
            assert len(answer) < 2000


@pytest.mark.parametrize(
    ("query", "complaint"),
    [("a&" * 65_000, "the query has more than 20000 parameters"),
     ("&".join(f"{number:x}=1" for number in range(17_000)), "unknown parameter '0', '1', '10', '100', "),
     ("%6eame=1&" * 14_000 + "x=1", "unknown parameter 'x'")],
)  # fmt: skip
def test_long_query_is_refused_like_a_short_one(serve, jobs, query, complaint):
    status, _, _ = serve(jobs).ask("GET", f"/cloudupload?{query}")
    assert status.startswith(f"400 {complaint}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("/srv/obs/cloudupload/7 can't be read: Permission denied", "7 can't be read: Permission denied"),
     ("there is no spool /srv/obs/cloudupload", "there is no spool cloudupload"),
     ("the image '/a/b.c/d-e' is bad, see (/x/y/z) and file=/a/b", "the image 'd-e' is bad, see (z) and file=b"),
     ("unknown method GET:/a/b at http://obs/x/y or 1/2/3, /a", "unknown method GET:b at http://obs/x/y or 1/2/3, /a")],
)  # fmt: skip
def test_paths_in_texts_become_names(text, shown):
    assert replies.without_directories(text) == shown


def test_answers_have_no_directories(serve, jobs, tmp_path):
    """Neither in an answer nor in what becomes of a job; a path that a client sends comes back as it was."""
    server = serve(jobs)
    jobs.job_path("77").symlink_to("77")
    jobs.job_path("78").write_text("<clouduploadjob")
    waiting = server.create(size=3)
    (jobs.directory / f"{waiting}.file").mkdir()
    answers = [
        server.send(f"{line} HTTP/1.1\r\nHost: obs\r\nContent-Length: 3\r\n\r\nabc".encode())
        for line in ("GET /cloudupload/2/_log", "PUT /cloudupload/4711", "GET /cloudupload/_pubkey",
                     "GET /cloudupload/77", "GET /cloudupload/77/_log", "POST /cloudupload/77?cmd=kill",
                     "PUT /cloudupload/77", "GET /cloudupload/78", "POST /cloudupload/78?cmd=kill",
                     f"PUT /cloudupload/{waiting}", "GET /api/v1/jobs", f"GET /cloudupload/{waiting}")
    ]  # fmt: skip
    assert [answer.split()[1] for answer in answers] == [b"400"] * 7 + [b"404"] * 2 + [b"400", b"200", b"200"]
    jobs.directory.rename(jobs.directory.with_name("elsewhere"))
    answers += [server.ask(*line.split(), b"{}")[2] for line in ("GET /cloudupload", f"POST {wiki()}", "GET /metrics",
                                                                 "GET /healthz", "GET /api/v1/jobs")]  # fmt: skip
    assert not [answer for answer in answers if str(tmp_path.parent.name).encode() in answer]
    assert b"unknown request: GET:/srv/obs/x" in server.ask("GET", "/srv/obs/x")[2]


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.WAITING])
@pytest.mark.parametrize(
    "target", ["/cloudupload/7", "/cloudupload", "/cloudupload?name=7", "/api/v1/jobs", "/api/v1/jobs/7"]
)
def test_reason_of_a_failure_shows_clients_no_directory(serve, make_spool, make_job, state, target):
    jobs = make_spool()
    details = "try 2 of 4: /home/ann/.config/x/.ec2utils.conf can't be read: Permission denied"
    make_job(jobs, "7", state=state, try_=2, details=details)
    status, _, answer = serve(jobs).ask("GET", target)
    assert status == "200 OK"
    assert b"try 2 of 4: .ec2utils.conf can" in answer
    assert b"/home" not in answer
    assert jobs.read("7")[0].details == details  # for those on this machine


def test_result_of_a_success_may_be_a_path(serve, make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "7", state=JobState.SUCCEEDED, target="directory", details="/srv/images/a.raw")
    assert b"<details>/srv/images/a.raw</details>" in serve(jobs).ask("GET", "/cloudupload/7")[2]
