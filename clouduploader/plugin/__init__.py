"""What a platform plugin imports.

A plugin imports this package, `clouduploader.errors` and nothing else of ours; one whose cloud takes a disk in chunks
also `clouduploader.plugin.transfer`, which is apart so that others need not load it. It is named in the
entry-point group `clouduploader.platforms` by a function that takes a `PlatformContext` and returns a `Platform`.
"""

from clouduploader.plugin.capabilities import (
    AccountGuide,
    Accounts,
    Hints,
    Verification,
)
from clouduploader.plugin.context import (
    Context,
    UploadContext,
)
from clouduploader.plugin.events import (
    BytesMoved,
    Event,
    ImageFound,
    NullReporter,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
    Reporter,
)
from clouduploader.plugin.fields import (
    Field,
    FieldKind,
    JsonValue,
)
from clouduploader.plugin.objects import (
    CleanUpReport,
    CloudObject,
    FoundObject,
    Leftover,
    ObjectState,
)
from clouduploader.plugin.platform import (
    HomeFile,
    Platform,
    PlatformContext,
)
from clouduploader.plugin.request import (
    CheckUnchanged,
    ImageInspector,
    Journal,
    UploadRequest,
)
from clouduploader.plugin.results import (
    Cost,
    Finding,
    Level,
    Plan,
    Shortfall,
    UploadResult,
)

__all__ = [
    "AccountGuide",
    "Accounts",
    "BytesMoved",
    "CheckUnchanged",
    "CleanUpReport",
    "CloudObject",
    "Context",
    "Cost",
    "Event",
    "Field",
    "FieldKind",
    "Finding",
    "FoundObject",
    "Hints",
    "HomeFile",
    "ImageFound",
    "ImageInspector",
    "Journal",
    "JsonValue",
    "Leftover",
    "Level",
    "NullReporter",
    "ObjectCreated",
    "ObjectRemoved",
    "ObjectState",
    "PhaseStarted",
    "Plan",
    "Platform",
    "PlatformContext",
    "Reporter",
    "Shortfall",
    "UploadContext",
    "UploadRequest",
    "UploadResult",
    "Verification",
]
