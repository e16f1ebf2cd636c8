"""A Keystone and a Glance in one HTTP server: application credentials, images, their data and their digests."""

import hashlib
import http.server
import json
import re
import threading
import urllib.parse
import uuid
from types import MappingProxyType


class OpenStackCloud:
    """An OpenStack of one region, `RegionOne`, and one user.

    Attributes:
        images: What Glance has, by id; each as its API shows it.
        data: The bytes of each image that has some.
        failures: HTTP statuses with which the next uploads of data are refused.
    """

    CREDENTIAL = MappingProxyType({"id": "credential-1", "secret": "the secret of the credential"})

    def __init__(self):
        self.images, self.data, self.failures = {}, {}, []
        cloud = self

        class Handler(_Handler):
            def cloud(self):
                return cloud

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        host, port = self._server.server_address
        self.url = f"http://{host}:{port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_words):
        pass

    def _answer(self, status, document=None, headers=()):
        body = json.dumps(document).encode() if document is not None else b""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _do(self):
        cloud, body = self.cloud(), self._body()
        path = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(path.query))
        name = path.path.rstrip("/")
        if name == "/identity/v3" and self.command == "GET":
            version = {
                "id": "v3.14",
                "status": "stable",
                "links": [{"rel": "self", "href": f"{cloud.url}/identity/v3/"}],
            }
            return self._answer(200, {"version": version})
        if name == "/identity/v3/auth/tokens" and self.command == "POST":
            return self._log_in(cloud, json.loads(body))
        if name in ("/image", "/image/versions"):
            link = {"rel": "self", "href": f"{cloud.url}/image/v2/"}
            return self._answer(200, {"versions": [{"id": "v2.16", "status": "CURRENT", "links": [link]}]})
        if self.headers.get("X-Auth-Token") != "token-1":
            return self._answer(401, {"error": {"code": 401, "message": "Log in first.", "title": "Unauthorized"}})
        return self._glance(cloud, name, query, body)

    def _log_in(self, cloud, document):
        given = document["auth"]["identity"].get("application_credential", {})
        if given != dict(cloud.CREDENTIAL):
            return self._answer(401, {"error": {"code": 401, "message": "Not authorized.", "title": "Unauthorized"}})
        endpoint = {"id": "e", "interface": "public", "region_id": "RegionOne", "region": "RegionOne",
                    "url": f"{cloud.url}/image"}  # fmt: skip
        token = {
            "methods": ["application_credential"],
            "user": {"id": "u", "name": "u", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p", "name": "p", "domain": {"id": "default", "name": "Default"}},
            "roles": [],
            "issued_at": "2026-11-29T00:00:00.000000Z",
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "catalog": [{"id": "s", "type": "image", "name": "glance", "endpoints": [endpoint]}],
        }
        return self._answer(201, {"token": token}, [("X-Subject-Token", "token-1")])

    def _glance(self, cloud, name, query, body):
        if name == "/image/v2/images" and self.command == "POST":
            image = {"id": str(uuid.uuid4()), "status": "queued", "tags": [], **json.loads(body)}
            cloud.images[image["id"]] = image
            return self._answer(201, image)
        if name == "/image/v2/images":
            keys = ("name", "status")
            found = [
                image
                for image in cloud.images.values()
                if all(image.get(key) == query[key] for key in keys if key in query)
                and query.get("tag") in (None, *image["tags"])
            ]
            return self._answer(200, {"images": found, "schema": "/v2/schemas/images", "first": "/v2/images"})
        wanted = re.fullmatch(r"/image/v2/images/([^/]+)(/file)?", name)
        image = cloud.images.get(wanted[1]) if wanted else None
        if image is None:
            return self._answer(404, {"message": f"No image found with ID {wanted and wanted[1]}", "code": "404"})
        if wanted[2] and self.command == "PUT":
            if cloud.failures:
                return self._answer(cloud.failures.pop(0), {"message": "Out of space."})
            cloud.data[image["id"]] = body
            image.update(status="active", size=len(body), os_hash_algo="sha512")
            image["os_hash_value"] = hashlib.sha512(body).hexdigest()
            return self._answer(204)
        if self.command == "DELETE":
            del cloud.images[image["id"]]
            cloud.data.pop(image["id"], None)
            return self._answer(204)
        return self._answer(200, image)

    do_GET = do_POST = do_PUT = do_DELETE = _do
