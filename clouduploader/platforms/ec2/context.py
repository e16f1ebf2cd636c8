"""What the steps of one upload to EC2 share, by either method."""

import functools
from typing import TYPE_CHECKING

from clouduploader.platforms.ec2.auth import Account
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import UploadContext

if TYPE_CHECKING:
    from mypy_boto3_ebs import EBSClient
    from mypy_boto3_ec2 import EC2Client


class Ec2Context:
    """One upload and its account.

    Args:
        ctx: The upload.
        settings: Section `[ec2]`.

    Attributes:
        ctx, settings: As given.
        account: The upload's, which the platform has connected.
        region: The upload's.
        keys: Credentials that are renewed before they expire.
    """

    def __init__(self, ctx: UploadContext, settings: Ec2Settings) -> None:
        self.ctx = ctx
        self.settings = settings
        self.account: Account = ctx.client
        self.region = self.account.region
        self.keys = self.account.keys

    def authenticate(self) -> None:
        """Get credentials for the upload's account. Uses the network.

        Raises:
            ClouduploaderError: See `Account.fresh_keys`.
        """
        with self.ctx.phase("authenticate"):
            self.keys()
            self.ctx.reporter.line("Successfully authenticated.")

    @functools.cached_property
    def ebs(self) -> "EBSClient":
        """A client of the EBS direct APIs."""
        return self.account.ebs()

    @property
    def ec2(self) -> "EC2Client":
        """The client of EC2 in the upload's region."""
        return self.account.ec2()
