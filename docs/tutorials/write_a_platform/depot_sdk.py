"""The SDK of a made-up cloud, the depot, as its vendor would give it to you."""

import http.client
import json
import urllib.parse


class DepotError(Exception):
    """What the depot refuses.

    Attributes:
        status: Of HTTP; None if there was no answer.
    """

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Depot:
    """A client of a depot."""

    def __init__(self, url, token):
        self._host = urllib.parse.urlsplit(url).netloc
        self._token = token

    def create(self, name, labels):
        """Make an image without content; return its id."""
        return self._ask("POST", "/images", json.dumps({"name": name, "labels": labels}))["id"]

    def send(self, image_id, stream):
        """Send the content of an image."""
        self._ask("PUT", f"/images/{image_id}", stream)

    def get(self, image_id):
        """Return an image: id, name, labels, state (new, checking, ready) and sha256."""
        return self._ask("GET", f"/images/{image_id}")

    def list(self):
        """Return all images."""
        return self._ask("GET", "/images")

    def delete(self, image_id):
        """Remove an image."""
        self._ask("DELETE", f"/images/{image_id}")

    def _ask(self, method, path, body=None):
        connection = http.client.HTTPConnection(self._host, timeout=60)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self._token}"})
            response = connection.getresponse()
            text = response.read().decode()
        except OSError as exc:
            raise DepotError(None, str(exc)) from exc
        finally:
            connection.close()
        if response.status >= 400:
            raise DepotError(response.status, text)
        return json.loads(text)
