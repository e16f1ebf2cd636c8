"""What one run of the program carries along: the global options and the settings. Works without Click."""

import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from clouduploader.errors import ConfigError, DeniedError, UsageError
from clouduploader.store import config
from clouduploader.store.config import Config
from clouduploader.store.spool import Spool
from clouduploader.util import files
from clouduploader.util.certificates import ClientTls

if TYPE_CHECKING:  # a command without a server does not load the client
    from clouduploader.client import JobServer
    from clouduploader.client.cluster import ClusterServer

SERVER_VARIABLE = "CLOUDUPLOADER_SERVER"
CA_VARIABLE = "CLOUDUPLOADER_CA"
CERT_VARIABLE = "CLOUDUPLOADER_CERT"
KEY_VARIABLE = "CLOUDUPLOADER_KEY"
TOKEN_VARIABLE = "CLOUDUPLOADER_TOKEN"  # noqa: S105 a name


class Session:
    """One run of the program. Handed to the commands as Click's `obj`.

    Attributes:
        command: The name of the subcommand, for the JSON envelope.
        is_json: Whether the answer, and a failure, are to be one JSON object.
        is_verbose: Whether stderr shows details for debugging.
        is_quiet: Whether stderr is kept for errors.
        home: From the command line, or None.
        spool: From the command line, or None.
        server_url: From the command line, or None.
        ca: From the command line, or None.
        cert: From the command line, or None.
        key: From the command line, or None.
    """

    def __init__(self) -> None:
        self.command: str | None = None
        self.is_json = False
        self.is_verbose = False
        self.is_quiet = False
        self.home: Path | None = None
        self.spool: Path | None = None
        self.server_url: str | None = None
        self.ca: Path | None = None
        self.cert: Path | None = None
        self.key: Path | None = None
        self._token = os.environ.pop(TOKEN_VARIABLE, None)  # no program that is started gets it

    def read_config(self) -> Config:
        """Read the settings; make home and spool of a plain user if they are not there.

        Raises:
            ConfigError: See `config.load`.
        """
        found = config.load(home=self.home, spool=self.spool, environment=os.environ)
        for path in found.own_directories:
            with contextlib.suppress(OSError):  # the command that needs it says that it is not there
                path.mkdir(mode=files.PRIVATE_DIRECTORY_MODE, parents=True, exist_ok=True)
        return found

    @functools.cached_property
    def config(self) -> Config:
        """Return the settings, read when first asked for.

        Raises:
            ConfigError: See `config.load`.
        """
        return self.read_config()

    @functools.cached_property
    def server(self) -> "JobServer | None":
        """Return the server that the command works on; None if it works on the spool.

        A spool on the command line is nearer than a server in the environment.

        Raises:
            UsageError: Both are on the command line, or it is no URL.
            ConfigError: There is a token that can't be used.
            DeniedError: Others could read the token on its way.
            ClouduploaderError: It can't be reached: it is asked once what it can do.
        """
        if self.server_url and self.spool:
            raise UsageError("--server and --spool are two places", hint="Give one of them.")
        url = self.server_url or (None if self.spool else os.environ.get(SERVER_VARIABLE))
        return self._connect(url) if url else None

    def find_service(self) -> "JobServer":
        """Return the server that the command line, the environment or the settings name.

        In the settings the Unix socket of this machine's service goes before the server of the cluster.

        Raises:
            UsageError: None is named, or the name is no URL.
            ClouduploaderError: See `server`.
        """
        if self.server:
            return self.server
        socket = self.config.server.get("socket")
        url = f"unix:{socket}" if socket else self.config.cluster.get("server")
        if not url:
            raise UsageError(
                "no server is named",
                hint=f"Give --server or {SERVER_VARIABLE}, or set socket in [server], or server in [cluster], of "
                f"{self.config.path}.",
            )
        return self._connect(url)

    def _connect(self, url: str) -> "JobServer":
        from clouduploader.client import api

        return api.connect(url, self._token_for(url), tls=self._find_tls())

    def cluster_server(self, url: str) -> "ClusterServer":
        """Return the server that an upload host works for. Asks it nothing.

        Raises:
            UsageError: It is no URL.
            ConfigError: There is no token, or one that can't be used.
            DeniedError: Others could read what is sent.
        """
        from clouduploader.client import cluster

        token = self._token_for(url)
        if not token:
            raise ConfigError(
                "an upload host needs a token of the role `worker`",
                hint="`clouduploader token create --role worker` makes one; CLOUDUPLOADER_TOKEN, the file `token` in "
                "the home, or the keyring has it.",
            )
        return cluster.ClusterServer(url, token, tls=self._find_tls())

    def _token_for(self, url: str) -> str | None:
        """Return the token for a server, unless others could read it on its way; None for none."""
        from clouduploader import client

        plain = client.JobServer(url)
        token = self._find_token(plain.url)
        if token and not (plain.is_private or self.config.send_clear_tokens):
            raise DeniedError(
                f"the token is not sent to {plain.url}: by http others could read it on its way",
                hint="Give a URL with https.",
            )
        return token

    def _find_tls(self) -> ClientTls:
        """Return the files for TLS that the nearest of command line, environment and settings names.

        Raises:
            UsageError: There is a key without a certificate.
        """
        settings = self.config.tls
        ca, cert, key = (
            Path(text) if (text := os.environ.get(name)) else None
            for name in (CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE)
        )
        pairs = ((self.cert, self.key), (cert, key), (settings.cert, settings.key))
        cert, key = next((pair for pair in pairs if any(pair)), (None, None))
        if key and not cert:
            raise UsageError(f"there is no certificate with the key {key}", hint="Give both in the same way.")
        return ClientTls(ca=self.ca or ca or settings.ca, cert=cert, key=key)

    def _find_token(self, url: str) -> str | None:
        """Return the token that says to a server who asks; None for none.

        It is that of the environment, of what the service manager hands over, of the home, or of the keyring.

        Raises:
            ConfigError: It is none, or others can read its file; or the keyring does not answer.
        """
        from clouduploader.store import credentials, home, secret_service, token_file

        if self._token:
            return token_file.check(self._token, TOKEN_VARIABLE)
        if found := credentials.read(home.TOKEN, os.environ):
            return token_file.check(found, f"{home.TOKEN} in {credentials.VARIABLE}")
        return token_file.read(self.config.home.value) or secret_service.read(url, os.environ)

    def open_spool(self) -> Spool:
        """Return the spool of this machine.

        Raises:
            ConfigError: See `config.load`.
        """
        return Spool(self.config.spool.value)
