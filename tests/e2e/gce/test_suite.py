"""What every cloud's uploads must do, in Google's."""

from e2e.cloud_suite import CloudSuite


class TestGce(CloudSuite):
    pass
