"""A store that speaks as much of S3 as images need, and compares what it gets with the checksum that comes with it."""

import base64
import contextlib
import hashlib
import http.server
import math
import threading
import urllib.parse

SIGNED = ("X-Amz-Signature", "X-Amz-Expires", "X-Amz-Date")  # of a URL that is lent


class ObjectStoreServer:
    """A store on loopback.

    Attributes:
        url: Its endpoint.
        objects: By their paths, `/BUCKET/KEY`.
        uploads: Parts by their numbers, of uploads that are not completed, by path and id.
        refuses: The status that each request gets; None for its own.
        good_requests: After so many all others are refused with a 403.
        requests: Method and path of each, without the query.
    """

    def __init__(self):
        self.objects, self.uploads, self.refuses, self.requests = {}, {}, None, []
        self.good_requests = math.inf
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # asks for bodies that wait for that

            def log_message(self, *_arguments):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path, _, query = self.path.partition("?")
                store.requests.append(f"{self.command} {path}")
                names = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
                status, data, headers = store.answer(self.command, path, names, self.headers, body)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = answer

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method, path, query, headers, body):
        """Return status, body and headers."""
        if self.refuses or len(self.requests) > self.good_requests:
            return _refusal(self.refuses or 403, "InternalError")
        if not (headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256") or set(SIGNED) <= set(query)):
            return _refusal(403, "AccessDenied")
        checksum = headers.get("x-amz-checksum-sha256")
        if method == "PUT" and checksum != base64.b64encode(hashlib.sha256(body).digest()).decode():
            return _refusal(400, "BadDigest")
        upload = (path, query.get("uploadId"))
        if method == "PUT" and upload in self.uploads:
            self.uploads[upload][int(query["partNumber"])] = body
        elif method == "PUT":
            self.objects[path] = body
        elif method == "POST" and "uploads" in query:
            self.uploads[path, f"u{len(self.uploads)}"] = {}
            return _xml(f"<InitiateMultipartUploadResult><UploadId>u{len(self.uploads) - 1}</UploadId>")
        elif method == "POST":
            parts = self.uploads.pop(upload)
            self.objects[path] = b"".join(parts[number] for number in sorted(parts))
            return _xml("<CompleteMultipartUploadResult>")
        elif method == "GET" and "uploads" in query:
            found = [(there, name) for there, name in self.uploads if there.startswith(f"{path}/{query['prefix']}")]
            lines = [
                f"<Upload><Key>{there[len(path) + 1 :]}</Key><UploadId>{name}</UploadId></Upload>"
                for there, name in found
            ]
            return _xml(f"<ListMultipartUploadsResult>{''.join(lines)}")
        elif method == "DELETE":
            self.uploads.pop(upload, None) if query.get("uploadId") else self.objects.pop(path, None)
            return 204, b"", {}
        elif path not in self.objects:
            return _refusal(404, "NoSuchKey")
        else:
            return _part(self.objects[path], headers.get("Range"))
        return 200, b"", {"ETag": '"e"'}


def _part(data, wanted):
    if not wanted:
        return 200, data, {"ETag": '"of the store"'}
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, end = int(first), int(last) + 1 if last else len(data)
    headers = {"ETag": '"of the store"', "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
    return 206, data[start:end], headers


def _xml(text):
    name = text.partition(">")[0][1:]
    return 200, f"{text}</{name}>".encode(), {"Content-Type": "application/xml"}


def _refusal(status, code):
    return status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(), {}


@contextlib.contextmanager
def running():
    """Run a store inside the block."""
    store = ObjectStoreServer()
    try:
        yield store
    finally:
        store.close()


def write_keys(home, profile="default"):
    """Write keys for it into a home."""
    (home / ".aws").mkdir(parents=True, exist_ok=True)
    text = f"[{profile}]\naws_access_key_id = the-id\naws_secret_access_key = the-secret-key\n"
    (home / ".aws" / "credentials").write_text(text)
