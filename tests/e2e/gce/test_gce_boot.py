"""An image that Google's cloud has comes up in QEMU."""

from e2e.boot_suite import BootSuite


class TestGceBoot(BootSuite):
    pass
