"""The server of a cluster as upload hosts see it: the routes below /api/v1/cluster, and one job after the other."""

import contextlib
import hashlib
import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from clouduploader.client.cluster import ClusterServer

KEY = "0" * 32


class ClusterJob:
    """A job at the fake, and what came of it."""

    def __init__(self, *, image, data, secrets=(), target="directory", journal=None, filename="disk.raw"):
        self.image, self.data, self.secrets, self.target, self.filename = image, data, list(secrets), target, filename
        self.attempt, self.claim, self.host = 1, None, None
        self.log, self.journal = b"", dict(journal or {})
        self.beats, self.progress = 0, []
        self.end = self.released = None
        self.is_stopping = threading.Event()


class FakeCluster:
    """Listens on loopback. A test sets `lease_seconds` and the like before, and looks at `jobs` afterwards.

    Attributes:
        is_frozen: While it is set, nothing is answered.
        held: By the last part of a route, an event before which it is not answered.
    """

    def __init__(self, key=KEY):
        self.jobs, self.greetings, self.requests = {}, [], []
        self.lease_seconds, self.beat_seconds, self.grace_seconds = 30, 1, 900
        self.is_draining, self.failures, self.key = False, {}, key
        self.is_frozen, self.held = threading.Event(), {}
        self.changed = threading.Condition()
        self._clients = []
        fake = self

        class Handler(_Handler):
            cluster = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def client(self):
        """Return a ClusterServer; its connection is closed with the fake."""
        self._clients.append(ClusterServer(self.url, "made-up-token"))
        return self._clients[-1]

    def close(self):
        for client in self._clients:
            client.close()
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, condition, seconds=30):
        """Wait until a condition is true of what has come."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        while self.cluster.is_frozen.is_set():
            time.sleep(0.02)
        self.path, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))
        with self.cluster.changed:
            self.cluster.requests.append((self.path, self.query, body, self.headers.get("Authorization")))
            failures = self.cluster.failures.get(self.path.rpartition("/")[2], [])
            status = failures.pop(0) if failures else None
        if event := self.cluster.held.get(self.path.rpartition("/")[2]):
            event.wait(30)
        if status:
            answer = {"detail": "made up"}
        elif self.path == "/api/v1/cluster/hosts":
            self.cluster.greetings.append(json.loads(body))
            status, answer = 200, {"drain": self.cluster.is_draining, "greet_seconds": 1, "lease_seconds": 30}
        else:
            _, _, _, _, _, name, what = self.path.split("/")
            status, answer = getattr(self, f"_{what}")(self.cluster.jobs.get(name), body)
        self._answer(status, json.dumps(answer).encode())
        with self.cluster.changed:
            self.cluster.changed.notify_all()

    def do_GET(self):
        self.path, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))
        _, _, _, _, _, name, what = self.path.split("/")
        job = self.cluster.jobs[name]
        if failures := self.cluster.failures.get(what):
            self._answer(failures.pop(0), b"{}")
        elif not self._is_held(job, self.query):
            self._answer(409, b"{}")
        elif what == "image":
            found = self.headers.get("Range")
            start = int(found.removeprefix("bytes=").partition("-")[0]) if found else 0
            more = {"Content-Range": f"bytes {start}-{len(job.image) - 1}/{len(job.image)}"} if found else {}
            etag = f'"{hashlib.sha256(job.image).hexdigest()}"'
            self._answer(206 if found else 200, job.image[start:], ETag=etag, **more)
        else:
            self._answer(200, job.journal[self.query["file"]])

    def _answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def _is_held(self, job, said):
        return (
            job is not None and (str(job.attempt), job.claim) == (str(said["attempt"]), said["claim"]) and not job.end
        )

    def _claim(self, job, body):
        said = json.loads(body)
        if job is None or said["attempt"] != job.attempt or job.end or job.claim not in (None, said["claim"]):
            return 409, {"detail": "not the newest attempt"}
        job.claim, job.host = said["claim"], said.get("host")
        return 200, {
            "lease_seconds": self.cluster.lease_seconds,
            "beat_seconds": self.cluster.beat_seconds,
            "grace_seconds": self.cluster.grace_seconds,
            "job": {"user": "tom", "target": job.target, "filename": job.filename, "size": len(job.image)},
            "data": job.data,
            "secrets": job.secrets,
            "image": {"size": len(job.image), "sha256": hashlib.sha256(job.image).hexdigest()},
            "journal": {"key": self.cluster.key, "files": {name: len(data) for name, data in job.journal.items()}},
        }

    def _beat(self, job, body):
        said = json.loads(body)
        if not self._is_held(job, said):
            return 409, {"detail": "not the newest attempt"}
        job.beats += 1
        job.progress.append(said["progress"])
        stop = job.is_stopping.wait(self.cluster.beat_seconds)
        return (200, {"stop": stop}) if self._is_held(job, said) else (409, {"detail": "not the newest attempt"})

    def _log(self, job, body):
        if not self._is_held(job, self.query):
            return 409, {"detail": "not the newest attempt"}
        job.log = job.log[: int(self.query["offset"])] + body
        return 200, {"offset": len(job.log)}

    def _journal(self, job, body):
        if not self._is_held(job, self.query):
            return 409, {"detail": "not the newest attempt"}
        name = self.query["file"]
        if "remove" in self.query:
            job.journal.pop(name, None)
            return 200, {"offset": 0}
        before = b"" if "replace" in self.query else job.journal.get(name, b"")
        job.journal[name] = before[: int(self.query["offset"])] + body
        return 200, {"offset": len(job.journal[name])}

    def _done(self, job, body):
        said = json.loads(body)
        if not self._is_held(job, said):
            return 409, {"detail": "not the newest attempt"}
        job.end = said["exit_code"], said["result"]
        return 200, {}

    def _release(self, job, body):
        said = json.loads(body)
        if not self._is_held(job, said):
            return 409, {"detail": "not the newest attempt"}
        job.released, job.claim, job.attempt = said["reason"], None, job.attempt + 1
        return 200, {}
