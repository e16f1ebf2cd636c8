"""The calls of the EBS direct APIs, each checked as botocore's model and the user guide have it."""

import base64
import binascii
import contextlib
import dataclasses
import datetime
import hashlib
import hmac
import json
import re
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.elastic_block_store import Snapshot
from moto.ec2.utils import random_snapshot_id

from clouduploader.sandbox.aws import authorization, defaults, keys
from clouduploader.sandbox.aws.account import ACCOUNT_ID, SandboxAccount
from clouduploader.sandbox.aws.disks import BLOCK_BYTES, Disks
from clouduploader.sandbox.aws.ebs import parameters, snapshots
from clouduploader.sandbox.aws.ebs.errors import EbsError, invalid, unknown_snapshot
from clouduploader.sandbox.aws.ebs.http import HttpResponse, RequestHead
from clouduploader.sandbox.aws.ebs.signature import SignedCaller
from clouduploader.sandbox.aws.ebs.snapshots import DirectSnapshot
from clouduploader.sandbox.aws.policies import Context, Request
from clouduploader.sandbox.clock import CloudClock
from clouduploader.util.frozen import frozen

SNAPSHOT_ID = re.compile(r"snap-[0-9a-f]{1,59}")
KMS_KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:.*:[0-9]{12}:key/.*")
MAX_VOLUME_GIB = 65536
TIMEOUT_MINUTES = (10, 4320)
DEFAULT_TIMEOUT_MINUTES = 60
MAX_DESCRIPTION = 255
MAX_CLIENT_TOKEN = 64  # user guide, "Ensure idempotency"; the model has 255
PAGE_BLOCKS = (100, 10000)  # MaxResults; the user guide's FAQ: fewer than 100 are taken for 100
TOKEN_LIFE = datetime.timedelta(days=7)  # user guide, "Read EBS snapshots"
# What StartSnapshot and the blocks of an encrypted snapshot need besides (user guide, permissions for KMS keys).
KMS_ACTIONS = ("kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext")
THROTTLING = ("ThrottlingException", "RequestThrottledException")

ROUTES = (
    ("POST", re.compile(r"/snapshots"), "StartSnapshot"),
    ("PUT", re.compile(r"/snapshots/([^/]+)/blocks/([^/]+)"), "PutSnapshotBlock"),
    ("POST", re.compile(r"/snapshots/completion/([^/]+)"), "CompleteSnapshot"),
    ("GET", re.compile(r"/snapshots/([^/]+)/blocks"), "ListSnapshotBlocks"),
    ("GET", re.compile(r"/snapshots/([^/]+)/blocks/([^/]+)"), "GetSnapshotBlock"),
)


@frozen()
class EbsCall:
    """A request, as far as its first lines tell.

    Attributes:
        action: For example PutSnapshotBlock.
        snapshot_id: "" for StartSnapshot.
        block_index: As it stands in the path, or "".
        head: See RequestHead.
    """

    action: str
    snapshot_id: str
    block_index: str
    head: RequestHead

    @property
    def index(self) -> int:
        """The block index.

        Raises:
            EbsError: It is none.
        """
        index = parameters.decimal(
            {"index": self.block_index}, "index", (0, MAX_VOLUME_GIB << 11), reason="INVALID_BLOCK"
        )
        assert index is not None  # noqa: S101  (it is in the path)
        return index

    @property
    def query(self) -> dict[str, str]:
        """The arguments of a GET."""
        return dict(urllib.parse.parse_qsl(self.head.query, keep_blank_values=True))


def route(head: RequestHead) -> EbsCall | None:
    """Tell which call a request is; None if it is none."""
    for method, path, action in ROUTES:
        match = path.fullmatch(head.path) if method == head.method else None
        if match:
            snapshot_id, block_index, *_ = (*match.groups(), "", "")
            return EbsCall(action, snapshot_id, block_index, head)
    return None


@frozen()
class Body:
    """What came after the head.

    Attributes:
        data: Valid until the next request of the connection is read.
        digest: Its SHA-256.
    """

    data: memoryview
    digest: bytes


@dataclasses.dataclass
class Delays:
    """How long things take.

    Attributes:
        snapshot_seconds: How long a snapshot stays pending once it is complete.
        copy_seconds: The same of a copied image.
        hidden_seconds: How long a new snapshot does not exist after StartSnapshot.
    """

    snapshot_seconds: float = 0
    copy_seconds: float = 0
    hidden_seconds: float = 0


class EbsActions:
    """The calls of the EBS direct APIs.

    Args:
        account: Its lock is held where moto is touched.
        disks: Where the contents are.
        clock: AWS's clock.
    """

    def __init__(self, account: SandboxAccount, disks: Disks, clock: CloudClock) -> None:
        self.delays = Delays()
        self._account = account
        self._disks = disks
        self._clock = clock
        self._secret = uuid.uuid4().bytes  # of block tokens
        self._lock = threading.Lock()
        self._started: dict[tuple[str, str], tuple[dict[str, Any], HttpResponse]] = {}
        self._under_way: set[tuple[str, str]] = set()
        self._actions: dict[str, Callable[[EbsCall, SignedCaller, Body], HttpResponse]] = {
            "StartSnapshot": self._start,
            "PutSnapshotBlock": self._put,
            "CompleteSnapshot": self._complete,
            "ListSnapshotBlocks": self._list,
            "GetSnapshotBlock": self._get,
        }

    def forget(self) -> None:
        """Return to the initial state."""
        self.delays = Delays()
        self._started.clear()

    def do(self, call: EbsCall, caller: SignedCaller, body: Body) -> HttpResponse:
        """Answer a call.

        Raises:
            EbsError: It is refused.
        """
        if call.snapshot_id:
            with self._account.lock:
                ec2 = _ec2(caller)
                is_there = call.snapshot_id in ec2.snapshots
                there = authorization.resource_tags(ec2.tags.get(call.snapshot_id, {}))
            context = there if is_there else authorization.AboutNothing()
            self._check_right(caller, f"ebs:{call.action}", _arn(caller, call.snapshot_id), context)
        return self._actions[call.action](call, caller, body)

    def note(self, call: EbsCall, caller: SignedCaller, code: str) -> None:
        """Hear how a call ended."""
        if code in THROTTLING:
            snapshot = _ec2(caller).snapshots.get(call.snapshot_id)
            if isinstance(snapshot, DirectSnapshot):
                snapshot.throttled += 1

    @contextlib.contextmanager
    def under_way(self, call: EbsCall, body: Body, region: str) -> Iterator[None]:
        """Hold a client token while its call is being done.

        Raises:
            EbsError: Another call with it is being done.
        """
        token = parameters.json_object(body.data).get("ClientToken") if call.action == "StartSnapshot" else None
        if not isinstance(token, str):
            yield
            return
        place = (region, token)
        with self._lock:
            if place in self._under_way:
                raise EbsError(
                    "ConcurrentLimitExceededException", "A request with the same client token is being processed."
                )
            self._under_way.add(place)
        try:
            yield
        finally:
            with self._lock:
                self._under_way.remove(place)

    # --- the calls

    def _start(self, _call: EbsCall, caller: SignedCaller, body: Body) -> HttpResponse:
        asked = parameters.json_object(body.data)
        self._check_rights_to_start(caller, asked)
        token = parameters.text(asked, "ClientToken", MAX_CLIENT_TOKEN)
        place = (caller.region, token or "")
        before = self._started.get(place) if token else None
        if before:
            if before[0] != asked:
                raise EbsError(
                    "ConflictException",
                    "The request uses the same client token as a previous, but non-identical request.",
                )
            return before[1]
        answer = HttpResponse(201, body=json.dumps(self._begin(caller, asked)).encode())
        if token:
            self._started[place] = (asked, answer)
        return answer

    def _begin(self, caller: SignedCaller, asked: dict[str, Any]) -> dict[str, Any]:
        size_gib = parameters.integer(asked, "VolumeSize", (1, MAX_VOLUME_GIB), reason="INVALID_VOLUME_SIZE")
        if size_gib is None:
            raise invalid("VolumeSize is missing.", "INVALID_VOLUME_SIZE")
        minutes = parameters.integer(asked, "Timeout", TIMEOUT_MINUTES) or DEFAULT_TIMEOUT_MINUTES
        description = parameters.text(asked, "Description", MAX_DESCRIPTION) or ""
        if asked.get("ParentSnapshotId"):
            raise invalid("ParentSnapshotId: the sandbox has no incremental snapshots.")
        tags = parameters.tags(asked.get("Tags") or [])
        kms_key_arn = self._kms_key(caller, asked)
        now = self._clock.now()
        with self._account.lock:
            ec2 = _ec2(caller)
            snapshot_id = random_snapshot_id()
            snapshot = DirectSnapshot(
                ec2,
                snapshot_id,
                path=self._disks.content(snapshot_id),
                timeout=datetime.timedelta(minutes=minutes),
                now=now,
                hidden_seconds=self.delays.hidden_seconds,
                size_gib=size_gib,
                description=description,
                kms_key_id=kms_key_arn,
            )
            ec2.snapshots[snapshot_id] = snapshot
            snapshot.add_tags(tags)
        shown = {
            "SnapshotId": snapshot_id,
            "OwnerId": ACCOUNT_ID,
            "Status": "pending",
            "StartTime": now.timestamp(),
            "VolumeSize": size_gib,
            "BlockSize": BLOCK_BYTES,
            "Description": description or None,
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()] or None,
            "KmsKeyArn": kms_key_arn,
        }
        return {key: value for key, value in shown.items() if value is not None}

    def _check_rights_to_start(self, caller: SignedCaller, asked: dict[str, Any]) -> None:
        tags = parameters.tags(asked.get("Tags") or [])
        context = authorization.request_tags(tags)
        if parent := asked.get("ParentSnapshotId"):
            context = {**context, "ebs:parentsnapshot": _arn(caller, str(parent))}
        self._check_right(caller, "ebs:StartSnapshot", _arn(caller, "*"), context)
        if tags:
            # The reference does not say what the key has here; EC2's other calls have their own name there.
            made: Context = {**context, "ec2:createaction": "StartSnapshot"}
            self._check_right(caller, "ec2:CreateTags", _arn(caller, "*"), made)

    def _kms_key(self, caller: SignedCaller, asked: dict[str, Any]) -> str | None:
        is_encrypted, given = asked.get("Encrypted", False), parameters.text(asked, "KmsKeyArn", 2048)
        if not isinstance(is_encrypted, bool):
            raise invalid("Encrypted is neither true nor false.")
        if given is None:
            ec2 = _ec2(caller)
            return defaults.encryption_key(ec2) if is_encrypted or ec2.ebs_encryption_by_default else None
        if not is_encrypted:
            raise invalid("KmsKeyArn needs Encrypted.")
        key_arn = keys.resolve(caller.region, given) if KMS_KEY_ARN.fullmatch(given) else None
        if key_arn is None:
            raise invalid("The KMS key is not valid, or does not exist.", "INVALID_CUSTOMER_KEY")
        self._check_key_rights(caller, key_arn)
        return key_arn

    def _put(self, call: EbsCall, caller: SignedCaller, body: Body) -> HttpResponse:
        snapshot = self._direct(caller, call.snapshot_id)
        headers = call.head.headers
        index = call.index
        if (index + 1) * BLOCK_BYTES > snapshot.size_bytes:
            raise invalid(f"The block index {index} is outside of the volume.", "INVALID_BLOCK")
        if headers.get("x-amz-data-length") != str(BLOCK_BYTES) or len(body.data) != BLOCK_BYTES:
            raise invalid(f"The length of a block is {BLOCK_BYTES} bytes.", "INVALID_BLOCK")
        checksum = parameters.checksum(headers)
        if checksum is None:
            raise invalid("x-amz-Checksum is missing.")
        parameters.decimal(headers, "x-amz-progress", (0, 100))
        if not hmac.compare_digest(checksum, body.digest):
            raise invalid("The checksum is not that of the block.", "INVALID_BLOCK")
        snapshot.put(index, body.data, checksum, now=self._clock.now())
        return HttpResponse(
            201,
            {"x-amz-Checksum": base64.b64encode(checksum).decode(), "x-amz-Checksum-Algorithm": "SHA256"},
        )

    def _complete(self, call: EbsCall, caller: SignedCaller, _body: Body) -> HttpResponse:
        snapshot = self._direct(caller, call.snapshot_id)
        headers = call.head.headers
        count = parameters.decimal(headers, "x-amz-changedblockscount", (0, MAX_VOLUME_GIB << 11))
        if count is None:
            raise invalid("x-amz-ChangedBlocksCount is missing.")
        checksum = parameters.checksum(headers)
        method = headers.get("x-amz-checksum-aggregation-method")
        if (method is None) != (checksum is None) or method not in (None, "LINEAR"):
            raise invalid("A checksum needs the aggregation method LINEAR, and that a checksum.")
        encoded = None if checksum is None else base64.b64encode(checksum).decode()
        snapshot.seal(count, encoded, snapshot_seconds=self.delays.snapshot_seconds)
        return HttpResponse(202, body=json.dumps({"Status": snapshot.status}).encode())

    def _list(self, call: EbsCall, caller: SignedCaller, _body: Body) -> HttpResponse:
        snapshot = self._completed(caller, call.snapshot_id)
        query = call.query
        start = parameters.decimal(query, "startingBlockIndex", (0, MAX_VOLUME_GIB << 11)) or 0
        if "pageToken" in query:
            start = self._page_start(snapshot.id, query["pageToken"])
        wanted = parameters.decimal(query, "maxResults", (1, PAGE_BLOCKS[1]))
        size = max(wanted or PAGE_BLOCKS[1], PAGE_BLOCKS[0])
        found = [index for index in snapshots.list_blocks(snapshot, self._disks.content(snapshot.id)) if index >= start]
        shown: dict[str, Any] = {
            "Blocks": [{"BlockIndex": index, "BlockToken": self._token(snapshot.id, index)} for index in found[:size]],
            "ExpiryTime": (self._clock.now() + TOKEN_LIFE).timestamp(),
            "VolumeSize": snapshot.volume_size,
            "BlockSize": BLOCK_BYTES,
        }
        if len(found) > size:
            shown["NextToken"] = self._page_token(snapshot.id, found[size])
        return HttpResponse(200, body=json.dumps(shown).encode())

    def _get(self, call: EbsCall, caller: SignedCaller, _body: Body) -> HttpResponse:
        snapshot = self._completed(caller, call.snapshot_id)
        index = call.index
        if call.query.get("blockToken") != self._token(snapshot.id, index):
            raise invalid("The block token is not that of the block.", "INVALID_BLOCK_TOKEN")
        with self._disks.content(snapshot.id).open("rb") as file:
            file.seek(index * BLOCK_BYTES)
            data = file.read(BLOCK_BYTES).ljust(BLOCK_BYTES, b"\0")
        headers = {
            "Content-Type": "application/octet-stream",
            "x-amz-Data-Length": str(BLOCK_BYTES),
            "x-amz-Checksum": base64.b64encode(hashlib.sha256(data).digest()).decode(),
            "x-amz-Checksum-Algorithm": "SHA256",
        }
        return HttpResponse(200, headers, data)

    # --- what they share

    def _direct(self, caller: SignedCaller, snapshot_id: str) -> DirectSnapshot:
        snapshot = self._snapshot(caller, snapshot_id)
        if not isinstance(snapshot, DirectSnapshot):
            raise invalid(f"The snapshot '{snapshot_id}' is not in the pending state.", "INVALID_SNAPSHOT_ID")
        return snapshot

    def _completed(self, caller: SignedCaller, snapshot_id: str) -> Snapshot:
        snapshot = self._snapshot(caller, snapshot_id)
        if snapshot.status != "completed":
            raise invalid(f"The snapshot '{snapshot_id}' is not in the completed state.", "INVALID_SNAPSHOT_ID")
        return snapshot

    def _snapshot(self, caller: SignedCaller, snapshot_id: str) -> Snapshot:
        if not SNAPSHOT_ID.fullmatch(snapshot_id):
            raise invalid(f"'{snapshot_id}' is no snapshot id.", "INVALID_SNAPSHOT_ID")
        snapshot = _ec2(caller).snapshots.get(snapshot_id)
        if snapshot is None:
            raise unknown_snapshot(snapshot_id)
        if isinstance(snapshot, DirectSnapshot):
            snapshot.advance(self._clock.now())
            if not snapshot.is_visible:
                raise unknown_snapshot(snapshot_id)
        if snapshot.kms_key_id:
            self._check_key_rights(caller, snapshot.kms_key_id)
        return snapshot

    def _check_right(self, caller: SignedCaller, action: str, resource: str, context: Context) -> None:
        if not _may(caller, action, resource, context):
            raise EbsError(
                "AccessDeniedException",
                f"User: {caller.identity.arn} is not authorized to perform: {action} on resource: {resource} "
                f"because no identity-based policy allows the {action} action",
            )

    def _check_key_rights(self, caller: SignedCaller, key_arn: str) -> None:
        # Every principal of the account may use AWS's own key, by its key policy.
        if keys.is_managed(key_arn):
            return
        for action in KMS_ACTIONS:
            if not _may(caller, action, key_arn, {"kms:grantisforawsresource": "true"}):
                raise EbsError(
                    "AccessDeniedException",
                    f"User: {caller.identity.arn} is not authorized to perform: {action} on resource: {key_arn}",
                    "DEPENDENCY_ACCESS_DENIED",
                )

    def _token(self, snapshot_id: str, index: int) -> str:
        return base64.b64encode(hmac.digest(self._secret, f"{snapshot_id} {index}".encode(), "sha256")).decode()

    def _page_token(self, snapshot_id: str, index: int) -> str:
        return base64.b64encode(f"{snapshot_id} {index}".encode()).decode()

    def _page_start(self, snapshot_id: str, token: str) -> int:
        with contextlib.suppress(ValueError, binascii.Error):
            owner, _, index = base64.b64decode(token, validate=True).decode().partition(" ")
            if owner == snapshot_id:
                return int(index)
        raise invalid("The page token is not valid.", "INVALID_PAGE_TOKEN")


def _may(caller: SignedCaller, action: str, resource: str, context: Context) -> bool:
    asked = {"aws:requestedregion": caller.region, **context}
    if isinstance(context, authorization.AboutNothing):
        asked = authorization.AboutNothing(asked)
    return caller.identity.rights.allow(Request(action, resource, asked))


def _arn(caller: SignedCaller, snapshot_id: str) -> str:
    return authorization.arn(caller.region, ACCOUNT_ID, "snapshot", snapshot_id)


def _ec2(caller: SignedCaller) -> EC2Backend:
    return ec2_backends[ACCOUNT_ID][caller.region]
