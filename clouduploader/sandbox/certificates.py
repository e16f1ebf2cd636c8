"""The private CA of a sandbox, and the certificate of an https endpoint in it."""

import subprocess
from pathlib import Path

DAYS = "2"  # no sandbox lives longer
NAMES = "IP:127.0.0.1,DNS:localhost"
CONFIGURATION = f"""\
[req]
distinguished_name = name
prompt = no
[name]
CN = clouduploader sandbox
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {NAMES}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def create(ca_path: Path, server_path: Path) -> None:
    """Create a CA, and a certificate of it for 127.0.0.1 and localhost.

    The private key of the CA is not kept.

    Args:
        ca_path: Gets the certificate of the CA; in a directory that is there.
        server_path: Gets private key and certificate of the endpoint.

    Raises:
        subprocess.CalledProcessError: openssl failed.
    """
    directory = server_path.parent
    configuration, ca_key = directory / "openssl.cnf", directory / "ca.key"
    server_key, server_certificate = directory / "server.key", directory / "server.crt"
    configuration.write_text(CONFIGURATION)
    common: list[str | Path] = ["-config", configuration, "-days", DAYS]
    _openssl(*common, "-extensions", "ca", "-keyout", ca_key, "-out", ca_path)
    signed: list[str | Path] = [
        "-CA",
        ca_path,
        "-CAkey",
        ca_key,
        "-extensions",
        "server",
        "-subj",
        "/CN=endpoint in the sandbox",
    ]
    _openssl(*common, *signed, "-keyout", server_key, "-out", server_certificate)
    server_path.touch(mode=0o600)
    server_path.write_bytes(server_key.read_bytes() + server_certificate.read_bytes())
    for path in (configuration, ca_key, server_key, server_certificate):
        path.unlink()


def _openssl(*arguments: str | Path) -> None:
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*request, *arguments], check=True, capture_output=True)
