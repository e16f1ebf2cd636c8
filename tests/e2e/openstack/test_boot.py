"""An image that Glance has comes up."""

from e2e.boot_suite import BootSuite


class TestOpenStackBoot(BootSuite):
    pass
