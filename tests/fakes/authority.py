"""Certificates for servers on loopback."""

import datetime
import ipaddress
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make_authority(directory, *, host="127.0.0.1"):
    """Make a CA and a certificate of it for a host; returns (server's TLS context, path of the CA)."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"CA of {directory.name}")])
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)

    def certificate(subject, public_key, extension):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(public_key)
        builder = builder.serial_number(x509.random_serial_number()).add_extension(*extension)
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        return builder.not_valid_after(now + datetime.timedelta(days=1)).sign(ca_key, hashes.SHA256())

    try:
        alternative = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    ca = certificate(name, ca_key.public_key(), (x509.BasicConstraints(ca=True, path_length=None), True))
    leaf = certificate(x509.Name([]), key.public_key(), (x509.SubjectAlternativeName([alternative]), True))
    pem = serialization.Encoding.PEM
    directory.mkdir()
    (directory / "ca.pem").write_bytes(ca.public_bytes(pem))
    (directory / "leaf.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + leaf.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "leaf.pem")
    return context, directory / "ca.pem"
