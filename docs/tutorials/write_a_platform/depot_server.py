"""A depot on this machine, for tests and for trying: `python depot_server.py PORT`. It forgets all when it ends."""

import hashlib
import http.server
import json
import sys

TOKEN = "open sesame"


class DepotServer(http.server.ThreadingHTTPServer):
    """Listens on loopback; port 0 for any.

    Attributes:
        images: By id.
        is_full: Whether it takes no content any more.
    """

    daemon_threads = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.images = {}
        self.is_full = False
        self.count = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, value):
        text = value if isinstance(value, str) else json.dumps(value)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def pieces(self):
        """The body, which comes in chunks or has its length in front."""
        if "Content-Length" in self.headers:
            yield self.rfile.read(int(self.headers["Content-Length"]))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()

    def handle_request(self):
        images, image_id = self.server.images, self.path.removeprefix("/images").strip("/")
        body = hashlib.sha256()
        text = b""
        for piece in self.pieces() if self.command in ("POST", "PUT") else ():
            body.update(piece)
            text = piece if self.command == "POST" else b""
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, "the token is wrong")
        elif self.command == "POST":
            self.server.count += 1
            made = {"id": f"image-{self.server.count}", "state": "new", "sha256": None, **json.loads(text)}
            images[made["id"]] = made
            self.answer(200, made)
        elif image_id and image_id not in images:
            self.answer(404, f"there is no {image_id}")
        elif self.command == "PUT" and self.server.is_full:
            self.answer(413, "the depot is full")
        elif self.command == "PUT":
            images[image_id] |= {"state": "checking", "sha256": body.hexdigest()}
            self.answer(200, {})
        elif self.command == "DELETE":
            del images[image_id]
            self.answer(200, {})
        elif image_id:
            self.answer(200, images[image_id])
            images[image_id]["state"] = "ready" if images[image_id]["sha256"] else "new"  # at the next look
        else:
            self.answer(200, list(images.values()))

    do_GET = do_POST = do_PUT = do_DELETE = handle_request

    def log_message(self, *_words):
        pass


if __name__ == "__main__":
    DepotServer(int(sys.argv[1])).serve_forever()
