"""What schemathesis has to know to send what the JSON API takes; test_api_description.py hands it over."""

import schemathesis


@schemathesis.serializer("application/offset+octet-stream")
def serialize(_context, value):
    """Send bytes as they are, and what else it makes up as text."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@schemathesis.check
def failures_are_no_fault(_context, response, _case):
    """A full disk is the only trouble that a request may make."""
    if response.status_code >= 500:
        assert response.status_code == 507
