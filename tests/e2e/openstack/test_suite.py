"""What every cloud's uploads must do, in OpenStack."""

from e2e.cloud_suite import CloudSuite


class TestOpenStack(CloudSuite):
    def submit_options(self, case):
        return ["--region=RegionOne"]
