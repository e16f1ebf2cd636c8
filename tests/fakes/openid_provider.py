"""An OpenID provider that says what a test wants, true or not."""

import base64
import contextlib
import hashlib
import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

CLIENT = "uploads"


class Provider:
    """A provider with one account.

    Attributes:
        issuer: Its URL.
        configuration: What it says of itself.
        claims: What an ID token has, but for the nonce.
        header: Of an ID token.
        key: Signs it.
        algorithm: By which.
        keys: What it says its keys are.
        answers: Status, headers and body for a path, instead of what it would say.
        requests: Method, path, headers and form of what it was asked.
        nonce, challenge: Of the last authorization.
    """

    def __init__(self, issuer):
        self.issuer = issuer
        self.key, self.algorithm = ec.generate_private_key(ec.SECP256R1()), "ES256"
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        self.keys = [{**public, "kid": "k1", "use": "sig", "alg": "ES256"}]
        self.header = {"kid": "k1"}
        self.configuration = {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize?tenant=1",
            "token_endpoint": f"{issuer}/token",
            "jwks_uri": f"{issuer}/keys",
        }
        now = int(time.time())
        self.claims = {"iss": issuer, "aud": CLIENT, "sub": "248", "iat": now, "exp": now + 300, "groups": ["users"]}
        self.answers, self.requests = {}, []
        self.nonce = self.challenge = None

    def authorize(self, url):
        """Do what the browser of a user does who agrees; return the query that comes back."""
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
        assert (query["client_id"], query["response_type"]) == (CLIENT, "code")
        assert query["code_challenge_method"] == "S256"
        self.nonce, self.challenge = query["nonce"], query["code_challenge"]
        return {"code": "a-code", "state": query["state"]}

    def id_token(self):
        claims = {"nonce": self.nonce, **self.claims}
        return jwt.encode(claims, self.key, algorithm=self.algorithm, headers=self.header)

    def answer(self, method, path, headers, form):
        """Status, headers and body."""
        self.requests.append((method, path, headers, form))
        if path in self.answers:
            return self.answers[path]
        if path == "/.well-known/openid-configuration":
            return 200, {}, json.dumps(self.configuration).encode()
        if path == "/keys":
            return 200, {}, json.dumps({"keys": self.keys}).encode()
        if path == "/token":
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            if self.challenge != base64.urlsafe_b64encode(digest).rstrip(b"=").decode():
                return 400, {}, b'{"error": "invalid_grant"}'
            return 200, {}, json.dumps({"id_token": self.id_token(), "access_token": "at"}).encode()
        return 404, {}, b"{}"


@contextlib.contextmanager
def running():
    """A provider that listens, inside the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("Content-Length", 0))
            form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
            status, headers, body = made.answer(self.command, self.path, dict(self.headers), form)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Provider(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
