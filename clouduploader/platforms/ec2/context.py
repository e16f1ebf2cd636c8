"""What the steps of one upload to EC2 share, by either method."""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clouduploader.platforms.ec2 import auth
from clouduploader.platforms.ec2.auth import Account
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import CloudObject, ObjectCreated, UploadContext

if TYPE_CHECKING:
    from mypy_boto3_ebs import EBSClient
    from mypy_boto3_ec2 import EC2Client


class Ec2Context:
    """One upload, its account, and what it has made there.

    Args:
        ctx: The upload.
        settings: Section `[ec2]`.

    Attributes:
        ctx, settings: As given.
        account: The upload's, which the platform has connected.
        region: The upload's.
        keys: Credentials that are renewed before they expire.
        made: What exists, and when it was made, by the context's clock.
    """

    def __init__(self, ctx: UploadContext, settings: Ec2Settings) -> None:
        self.ctx = ctx
        self.settings = settings
        self.account: Account = ctx.client
        self.region = self.account.region
        self.keys = self.account.keys
        self.made: dict[CloudObject, float] = {}

    def authenticate(self) -> None:
        """Get credentials for the upload's account. Uses the network.

        Raises:
            TargetDataError: The upload would go into the service's own account; see `auth.check_role`.
            ClouduploaderError: See `Account.fresh_keys`.
        """
        auth.check_role(self.ctx.request)
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

    def object(self, kind: str, thing_id: str) -> CloudObject:
        """Name a thing of this region."""
        return CloudObject(kind, thing_id, self.region)

    def created(self, kind: str, thing_id: str) -> None:
        """Note that a thing exists and is this upload's."""
        thing = self.object(kind, thing_id)
        self.made[thing] = self.ctx.clock.monotonic()
        self.ctx.reporter.event(ObjectCreated(thing))

    def remove(self, things: Sequence[CloudObject]) -> None:
        """Remove things with fresh credentials; what can't be removed is said in the log. Blocks for minutes."""
        from clouduploader.platforms.ec2 import cleanup  # loads the SDK, which sending by our own requests does without

        made = {thing: self.made.pop(thing, -math.inf) for thing in things}
        cleanup.undo(self.ctx, self.account, made)
