"""A Keystone and Glances of two regions in one HTTP server, as strict as the real ones: see the tests in the sandbox.

What it refuses, and in which words, was taken down from Keystone 30 and Glance 33.
"""

import datetime
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse
import uuid
from types import MappingProxyType

PROJECT = "0123456789abcdef0123456789abcdef"
REGIONS = ("RegionOne", "RegionTwo")
LEAST_RULES = (
    ("GET", "/v2/images"),
    ("POST", "/v2/images"),
    ("GET", "/v2/images/*"),
    ("PUT", "/v2/images/*/file"),
    ("DELETE", "/v2/images/*"),
)
BASE = frozenset(
    {
        "status",
        "protected",
        "os_hidden",
        "checksum",
        "os_hash_algo",
        "os_hash_value",
        "owner",
        "size",
        "virtual_size",
        "created_at",
        "updated_at",
        "self",
        "file",
        "stores",
        "schema",
        "locations",
    }
)
MAX_TAGS = 128
PIECE_BYTES = 1 << 16


class OpenStackCloud:
    """An OpenStack of two regions with one project of ours, and one of others.

    Attributes:
        CREDENTIAL: What lets in.
        images: What Glance has, by region and id; each as its API shows it.
        data: The bytes of each image that has some, by id.
        members: The projects that an image is shared with, by id.
        calls: The requests so far: method and path.
        faults: What goes wrong; see `fault`.
        rules: The access rules of the credential, or None for all.
        catalog_type: Of the only service in the catalog.
        roles: Its roles.
        project: That of the credential, or None.
        is_restricted: Whether it can't make others.
        tokens: Those that are valid.
        import_methods: What Glance offers.
        importing: How many looks at an image say that it is being imported.
        is_failing_import: Whether imports fail.
        hash_algorithm: Of Glance.
        is_corrupting: Whether content that comes is changed.
        overriding: Properties that new images get whatever was asked for.
        framings: Of the contents so far: their length, or "chunked".
    """

    CREDENTIAL = MappingProxyType({"id": "credential-1", "secret": "the secret of the credential"})

    def __init__(self):
        self.reset()
        self.lock = threading.Lock()
        cloud = self

        class Handler(_Handler):
            pass

        Handler.cloud = cloud
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        host, port = self._server.server_address
        self.url = f"http://{host}:{port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def reset(self):
        """Return to the beginning: no images, the least rights, no faults."""
        self.images = {region: {} for region in REGIONS}
        self.data, self.members, self.calls, self.faults = {}, {}, [], []
        self.used_ids = set()
        self.rules = list(LEAST_RULES)
        self.catalog_type = "image"
        self.roles, self.is_restricted, self.project = ["reader", "member"], True, PROJECT
        self.tokens = set()
        self.import_methods, self.importing = "glance-direct,web-download", 0
        self.is_failing_import = False
        self.hash_algorithm, self.is_corrupting, self.overriding = "sha512", False, {}
        self.framings = []

    def all_images(self):
        """All images of all regions, by id."""
        return {image_id: image for images in self.images.values() for image_id, image in images.items()}

    def add_image(self, region="RegionOne", content=b"", **document):
        """Put an active image of our project there; return it."""
        image = _new_image({"disk_format": "raw", "container_format": "bare", "visibility": "private", **document})
        self.images[region][image["id"]] = image
        self.store(image, content)
        image.update({name: value for name, value in document.items() if name != "tags"})
        return image

    def store(self, image, content):
        """Make an image active."""
        if self.is_corrupting:
            content = b"?" + content[1:]
        self.data[image["id"]] = content
        digest = hashlib.new(self.hash_algorithm, content).hexdigest()
        image.update(status="active", size=len(content), os_hash_algo=self.hash_algorithm, os_hash_value=digest)

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class HangUpError(Exception):
    """The connection is to be closed without a word."""


class Refusal(Exception):
    """An answer that is none of success."""

    def __init__(self, status, message, headers=()):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


def fault(
    method, path, *, refuse=None, redirect=None, hang_up=False, cut_bytes=None, lose_answer=False, stall=None, times=1
):
    """Make a fault of the next requests of a method whose path fits a pattern.

    Args:
        method: Of HTTP.
        path: A regular expression for all of it.
        refuse: A status to answer with.
        redirect: A URL to send the client to.
        hang_up: Whether to hang up before anything is done.
        cut_bytes: After how many bytes of the body to hang up.
        lose_answer: Whether to do all, and hang up.
        stall: Called; then nothing is done until the client has gone.
        times: How many requests.
    """
    left = [times]

    def apply(handler, asked_method, asked_path):
        """Tell whether it is this one's turn; raise what ends the request."""
        if not left[0] or asked_method != method or not re.fullmatch(path, asked_path):
            return False
        left[0] -= 1
        if refuse:
            raise Refusal(refuse, "fault")
        if redirect:
            raise Refusal(307, "", [("Location", redirect)])
        if stall:
            stall()
            while handler.rfile.read1(PIECE_BYTES):
                time.sleep(0.01)
        if hang_up or stall:
            raise HangUpError
        handler.cut_bytes, handler.lose_answer = cut_bytes, lose_answer
        return True

    return apply


def _new_image(document):
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    image_id = document.get("id") or str(uuid.uuid4())
    return {
        "min_ram": 0,
        "min_disk": 0,
        "visibility": "shared",
        **document,
        "id": image_id,
        "status": "queued",
        "protected": False,
        "os_hidden": False,
        "owner": PROJECT,
        "size": None,
        "checksum": None,
        "os_hash_algo": None,
        "os_hash_value": None,
        "created_at": now,
        "updated_at": now,
        "tags": sorted(set(document.get("tags", []))),
        "schema": "/v2/schemas/image",
    }


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cut_bytes, lose_answer = None, False

    def log_message(self, *_words):
        pass

    def _answer(self, status, document=None, headers=()):
        if self.lose_answer:
            raise HangUpError
        body = json.dumps(document).encode() if document is not None else b""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pieces(self):
        """The body, as it comes; hangs up where it is to be cut."""
        passed = 0
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
                passed += size
                if self.cut_bytes is not None and passed >= self.cut_bytes:
                    raise HangUpError
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(left, PIECE_BYTES))
            if not piece:
                raise HangUpError
            yield piece
            left -= len(piece)
            passed += len(piece)
            if self.cut_bytes is not None and passed >= self.cut_bytes:
                raise HangUpError

    def _do(self):
        self.cut_bytes, self.lose_answer = None, False
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        try:
            with self.cloud.lock:
                self.cloud.calls.append((self.command, url.path))
            any(each(self, self.command, url.path) for each in self.cloud.faults)
            if url.path == "/identity/v3/auth/tokens" and self.command == "POST":
                self._log_in(json.loads(b"".join(self._pieces())))
            elif found := re.fullmatch(r"/image/([^/]+)(/v2/.*)", url.path):
                self._glance(found[1], found[2], query)
            else:
                raise Refusal(404, "The resource could not be found.")
        except Refusal as exc:
            self.lose_answer = False
            title = http.HTTPStatus(exc.status).phrase
            text = f"{exc.message}<br /><br />\n\n\n"
            self._answer(exc.status, {"message": text, "code": f"{exc.status} {title}", "title": title}, exc.headers)
            self.close_connection = True  # the body was not read
        except (HangUpError, ConnectionError):
            self.close_connection = True

    def _log_in(self, document):
        cloud = self.cloud
        given = document["auth"]["identity"].get("application_credential", {})
        if given != dict(cloud.CREDENTIAL):
            message = "The request you have made requires authentication."
            self._answer(401, {"error": {"code": 401, "message": message, "title": "Unauthorized"}})
            return
        name = uuid.uuid4().hex
        cloud.tokens.add(name)
        endpoints = [
            {"id": region, "interface": "public", "region_id": region, "region": region,
             "url": f"{cloud.url}/image/{region}"}
            for region in REGIONS
        ]  # fmt: skip
        rules = cloud.rules and [{"service": "image", "method": verb, "path": path} for verb, path in cloud.rules]
        token = {
            "methods": ["application_credential"],
            "user": {"id": "u", "name": "tom", "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": role, "name": role} for role in cloud.roles],
            "issued_at": "2026-11-29T00:00:00.000000Z",
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "catalog": [{"id": "s", "type": cloud.catalog_type, "name": "glance", "endpoints": endpoints}],
            "application_credential": {
                "id": given["id"],
                "name": "obs",
                "restricted": cloud.is_restricted,
                **({} if rules is None else {"access_rules": rules}),
            },
        }
        if cloud.project:
            token["project"] = {
                "id": cloud.project,
                "name": "tom-project",
                "domain": {"id": "default", "name": "Default"},
            }
        self._answer(201, {"token": token}, [("X-Subject-Token", name)])

    def _is_allowed(self, path):
        def fits(rule):
            pattern = re.escape(rule).replace(r"\*\*", ".*").replace(r"\*", "[^/]+").replace(r"\{id\}", "[^/]+")
            return re.fullmatch(pattern, path)

        return self.cloud.rules is None or any(self.command == verb and fits(rule) for verb, rule in self.cloud.rules)

    def _glance(self, region, path, query):
        cloud = self.cloud
        if self.headers.get("X-Auth-Token") not in cloud.tokens or not self._is_allowed(path):
            raise Refusal(401, "This server could not verify that you are authorized to access the document.")
        images = cloud.images[region]
        if path == "/v2/images":
            if self.command == "POST":
                self._create(images, json.loads(b"".join(self._pieces())))
            else:
                self._list(images, query)
            return
        found = re.fullmatch(r"/v2/images/([^/]+)(?:/([a-z]+))?", path)
        image = images.get(found[1]) if found else None
        if image is None:
            raise Refusal(404, f"No image found with ID {found and found[1]}")
        match (self.command, found[2]):
            case ("GET", None):
                self._show(image)
            case ("DELETE", None):
                del images[image["id"]]
                cloud.data.pop(image["id"], None)
                self._answer(204)
            case ("PUT", "file"):
                content = self._received(image, "saving")
                self._check(image, content)
                if images.get(image["id"]) is not image:
                    raise Refusal(410, f"Image {image['id']} could not be found after upload.")
                cloud.store(image, content)
                self._answer(204)
            case ("PUT", "stage"):
                cloud.data[image["id"]] = self._received(image, "uploading")
                self._answer(204)
            case ("POST", "import"):
                self._import(image, json.loads(b"".join(self._pieces())))
            case ("GET", "members"):
                listed = [{"member_id": member, "status": "pending"} for member in cloud.members.get(image["id"], [])]
                self._answer(200, {"members": listed, "schema": "/v2/schemas/members"})
            case ("POST", "members"):
                self._share(image, json.loads(b"".join(self._pieces()))["member"])
            case _:
                raise Refusal(404, "The resource could not be found.")

    def _create(self, images, document):
        cloud = self.cloud
        for name, value in document.items():
            if name in BASE:
                raise Refusal(403, f"Attribute '{name}' is read-only.")
            texts = [name, *(value if isinstance(value, list) else [str(value)])]
            if any(ord(char) > 0xFFFF for text in texts for char in text):
                raise Refusal(400, f"{name} can't contain 4 byte unicode characters.")
            if name not in ("min_disk", "min_ram", "tags") and not isinstance(value, str):
                raise Refusal(400, f"Provided object does not match schema 'image': {value} is not of type 'string'")
        if len(document.get("name", "")) > 255 or any(len(tag) > 255 for tag in document.get("tags", [])):
            raise Refusal(
                400, "Provided object does not match schema 'image': too long\n\nFailed validating 'maxLength'"
            )
        if document.get("disk_format") not in ("raw", "qcow2", "vhd", "vmdk"):
            raise Refusal(400, "Provided object does not match schema 'image': 'disk_format'")
        if document.get("visibility") == "public":
            raise Refusal(403, "You are not authorized to complete publicize_image action.")
        if len(document.get("tags", [])) > MAX_TAGS:
            raise Refusal(413, "The limit has been exceeded on the number of allowed image tags.")
        image = _new_image(document) | cloud.overriding
        with cloud.lock:
            if image["id"] in cloud.used_ids:
                raise Refusal(409, f"Image ID {image['id']} already exists!")
            cloud.used_ids.add(image["id"])
            images[image["id"]] = image
        self._answer(201, image, [("OpenStack-image-import-methods", cloud.import_methods)])

    def _list(self, images, query):
        if query.get("name", "").startswith("in:"):
            raise Refusal(400, "Invalid filter value. The quote is not closed.")
        with self.cloud.lock:
            found = [
                image
                for image in images.values()
                if all(image.get(key) == query[key] for key in ("name", "status", "owner") if key in query)
                and query.get("tag") in (None, *image["tags"])
            ]
        if "marker" in query:
            ids = [image["id"] for image in found]
            if query["marker"] not in ids:
                raise Refusal(404, f"No image found with ID {query['marker']}")
            found = found[ids.index(query["marker"]) + 1 :]
        self._answer(200, {"images": found[: int(query.get("limit", 2))], "schema": "/v2/schemas/images"})

    def _show(self, image):
        if image["status"] == "importing":
            self.cloud.importing -= 1
            if self.cloud.is_failing_import:
                image.update(status="queued", os_glance_failed_import="main")
            elif self.cloud.importing < 0:
                self.cloud.store(image, self.cloud.data[image["id"]])
        self._answer(200, image)

    def _received(self, image, status):
        if self.headers.get("Content-Type") != "application/octet-stream":
            raise Refusal(415, "The request media type is not supported by this server.")
        with self.cloud.lock:
            if image["status"] != "queued":
                raise Refusal(409, f"Image status transition from {image['status']} to {status} is not allowed")
            image["status"] = status
        self.cloud.framings.append(self.headers.get("Transfer-Encoding") or self.headers["Content-Length"])
        content = bytearray()
        try:
            for piece in self._pieces():
                content += piece
        except BaseException:
            image["status"] = "queued"
            raise
        return bytes(content)

    @staticmethod
    def _check(image, content):
        is_qcow2 = content.startswith(b"QFI\xfb")
        if is_qcow2 != (image["disk_format"] == "qcow2"):
            image["status"] = "queued"
            raise Refusal(
                415, "The request media type is not supported by this server.\n<br /><br />\nImage failed safety checks"
            )

    def _import(self, image, document):
        if document["method"]["name"] not in self.cloud.import_methods.split(","):
            raise Refusal(404, "The resource could not be found.")
        if image["status"] != "uploading":
            raise Refusal(409, "Image needs to be staged before 'glance-direct' method can be used")
        image["status"] = "importing"
        self._answer(202)

    def _share(self, image, member):
        if image["visibility"] != "shared":
            raise Refusal(403, "Only shared images have members.")
        kept = self.cloud.members.setdefault(image["id"], [])
        if member in kept:
            raise Refusal(409, f"Member {member} is duplicated for image {image['id']}")
        kept.append(member)
        self._answer(200, {"member_id": member, "image_id": image["id"], "status": "pending"})

    do_GET = do_POST = do_PUT = do_DELETE = _do
