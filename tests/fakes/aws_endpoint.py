"""A server that plays an endpoint of AWS, and answers of STS."""

import contextlib
import dataclasses
import http.server
import threading
import urllib.parse
import xml.sax.saxutils

ACCOUNT_XML = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<AssumedRoleUser><AssumedRoleId>AROA:obs</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken>{token}</SessionToken><Expiration>2026-11-22T18:00:00Z</Expiration></Credentials>
</AssumeRoleResult><ResponseMetadata><RequestId>id-1</RequestId></ResponseMetadata></AssumeRoleResponse>"""
ERROR_XML = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>{code}</Code><Message>{message}</Message></Error><RequestId>id-2</RequestId></ErrorResponse>"""
IDENTITY_XML = """<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>{arn}</Arn><UserId>AIDA</UserId><Account>111122223333</Account></GetCallerIdentityResult>
<ResponseMetadata><RequestId>id-3</RequestId></ResponseMetadata></GetCallerIdentityResponse>"""


def granting():
    """An answer that grants credentials."""
    return 200, ACCOUNT_XML.format(secret="SECRET/of+role", token="TOKEN/of+role=")


def identity(arn="arn:aws:iam::111122223333:user/obs"):
    """An answer that tells who is asking."""
    return 200, IDENTITY_XML.format(arn=xml.sax.saxutils.escape(arn))


@dataclasses.dataclass
class Request:
    """What a client sent."""

    path: str
    headers: dict
    body: bytes

    @property
    def form(self):
        """The parameters of an API call."""
        return dict(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True))


class Endpoint:
    """A server on loopback. Gives the answers in turn, the last one again and again.

    An answer is a status and a body, and perhaps headers, or a function that makes one of the request; None hangs up
    without a word.
    """

    def __init__(self, answers):
        self.requests = []
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.do_POST()

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.path, dict(self.headers.items()), body)
                endpoint.requests.append(request)
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                answer = answer(request) if callable(answer) else answer
                if answer is None:
                    self.close_connection = True
                    return
                status, text, *rest = answer
                content = text if isinstance(text, bytes) else text.encode()
                headers = {"Date": self.date_time_string(), "Content-Length": len(content)} | (rest[0] if rest else {})
                self.send_response_only(status)
                for name, value in headers.items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):  # a client that has read enough
                    self.wfile.write(content)

            def log_message(self, *_arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
