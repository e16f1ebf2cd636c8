"""Serve a WSGI application of OpenStack; run by the Python of its own environment.

    python serve.py MODULE PORT

A server that passes a request's body on while it comes, as those of real clouds do: what breaks then is Glance's.
"""

import importlib
import sys
import warnings

MODULE, PORT = sys.argv[1:]
sys.argv = [MODULE]  # oslo.config reads the rest when the module is imported
warnings.simplefilter("ignore")

from gunicorn.app.base import BaseApplication  # noqa: E402

SETTINGS = {
    "bind": f"127.0.0.1:{PORT}",
    "worker_class": "gthread",
    "threads": 8,
    "timeout": 0,  # an upload may take longer than any
    "control_socket_disable": True,
}


class Server(BaseApplication):  # type: ignore[misc] # it is not installed here
    """One process with threads, and one that watches it."""

    def load_config(self) -> None:
        """Take our settings."""
        for name, value in SETTINGS.items():
            self.cfg.set(name, value)

    def load(self) -> object:
        """Import the application, in the process that serves it."""
        return importlib.import_module(MODULE).application


Server().run()
