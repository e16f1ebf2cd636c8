"""Which hosts are this machine."""

import ipaddress


def is_here(host: str) -> bool:
    """Tell whether a host, a name or an address, is this machine: what is sent to it can't be read on its way."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
