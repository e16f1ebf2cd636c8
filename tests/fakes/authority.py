"""An authority of its own for each test, and its certificates for servers on loopback."""

import datetime
import ipaddress
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)


class Authority:
    """A CA whose files are in a directory.

    Attributes:
        path: Of its own certificate.
    """

    def __init__(self, directory):
        self._directory = directory
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"CA of {directory.name}")])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.path = directory / "ca.pem"
        directory.mkdir()
        basic = (x509.BasicConstraints(ca=True, path_length=None), True)
        self.path.write_bytes(self._certificate(self._name, self._key.public_key(), basic, datetime.timedelta()))

    def issue(self, name="leaf", *, host="127.0.0.1", age=datetime.timedelta(), key=None):
        """Make a certificate that is good for a day before and after now, less `age`.

        Returns:
            The path of a file with its key and itself.
        """
        try:
            alternative = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            alternative = x509.DNSName(host)
        key = key or ec.generate_private_key(ec.SECP256R1())
        extension = (x509.SubjectAlternativeName([alternative]), True)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._directory / f"{name}.pem"
        path.touch(0o600)
        path.write_bytes(pem + self._certificate(x509.Name([]), key.public_key(), extension, age))
        return path

    def server_context(self, **options):
        """Make a certificate, see `issue`, and return the TLS context of a server with it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(**options))
        return context

    def _certificate(self, subject, public_key, extension, age):
        now = datetime.datetime.now(datetime.UTC) - age
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public_key)
        builder = builder.serial_number(x509.random_serial_number()).add_extension(*extension)
        builder = builder.not_valid_before(now - DAY).not_valid_after(now + DAY)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_authority(directory, *, host="127.0.0.1"):
    """Make a CA and a certificate of it for a host; returns (server's TLS context, path of the CA)."""
    authority = Authority(directory)
    return authority.server_context(host=host), authority.path
