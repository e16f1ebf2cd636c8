"""A server in a thread of the test, and a client that sees every byte."""

import contextlib
import io
import signal
import socket
import threading
import urllib.parse
from unittest import mock

from clouduploader.server import service, settings
from clouduploader.store import config
from clouduploader.util import cancel, service_log

PATIENCE_SECONDS = 60  # only a failing test waits that long


class Server:
    """A running server.

    Attributes:
        address: Where it listens: host and port, or the path of a Unix socket.
        log: What it has written of itself.
        section: Its settings, read again when `source` is outdated.
        source: See `section`.
        source_address: Where its clients come from, host and port; None for what the kernel chooses.
        context: What clients speak TLS by; None without.
    """

    def __init__(self, address, log, section, source):
        self.address, self.log, self.section, self.source = address, log, section, source
        self.source_address = self.context = None

    def connect(self):
        if isinstance(self.address, str):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(PATIENCE_SECONDS)
            client.connect(self.address)
            return client
        client = socket.create_connection(self.address, PATIENCE_SECONDS, self.source_address)
        return self.context.wrap_socket(client, server_hostname=self.address[0]) if self.context else client

    def send(self, data):
        """Send bytes, and return all that comes until the server hangs up."""
        with self.connect() as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65_536), b""))

    def ask(self, method, target, body=None, **headers):
        """Send a request; return status, headers as they came, and body with its chunks put together."""
        lines = [f"{method} {target} HTTP/1.1", "Host: obs"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body is not None and "Transfer_Encoding" not in headers:
            lines.append(f"Content-Length: {len(body)}")
        answer = self.send("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        return parse(answer)

    def create(self, size=10, **fields):
        """Make a job; return its name."""
        fields = {"user": "tom", "target": "ec2", "project": "p", "repository": "r", "package": "k", "arch": "x86_64",
                  "filename": "a.raw.xz", "size": str(size), "details": "7b7d", **fields}  # fmt: skip
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
        status, _, body = self.ask("POST", "/cloudupload", f"<clouduploadjob>{inner}</clouduploadjob>".encode())
        assert status.startswith("200"), body
        return body.split(b'"')[1].decode()


def parse(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    if "Transfer-Encoding: chunked" in headers:
        pieces = []
        while body:
            size, _, rest = body.partition(b"\r\n")
            pieces.append(rest[: int(size, 16)])
            body = rest[int(size, 16) + 2 :]
        body = b"".join(pieces)
    return status.removeprefix("HTTP/1.1 "), headers, body


@contextlib.contextmanager
def server_starter(directory):
    """Give a function that starts a server on a spool; the keys of section [server] can be given.

    Args:
        directory: Where the servers get their home, `etc/cloudupload`. They have ended at the end.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(service, "POLL_SECONDS", 0.01))  # each server's end waits for it

        def start(jobs, *, worker=None, cluster=None, **section):
            home = directory / "etc" / "cloudupload"
            home.mkdir(parents=True, exist_ok=True)
            loaded = config.load(home=home, spool=jobs.directory, environment={})
            section = {"listen": "127.0.0.1:0", **section}
            source = settings.SettingsSource(lambda: settings.load(section, loaded.path))
            asked, ready, urls, log = cancel.Cancel(), threading.Event(), [], io.StringIO()

            def announce(url):
                urls.append(url)
                ready.set()

            thread = threading.Thread(
                target=service.run,
                args=(loaded, source),
                kwargs={
                    "cancel": asked,
                    "announce": announce,
                    "log": service_log.ServiceLog(log),
                    "worker": worker,
                    "cluster": cluster,
                },
            )
            thread.start()
            stack.callback(thread.join)
            stack.callback(asked.request, signal.SIGTERM)
            assert ready.wait(PATIENCE_SECONDS)
            url = urllib.parse.urlsplit(urls[0].partition(" and ")[0])
            address = url.path if url.scheme == "unix" else (url.hostname, url.port)
            return Server(address, log, section, source)

        start.stop = stack.close  # ends them before the test, and waits until they have
        yield start
