"""What a platform plugin imports.

A plugin imports this package with its modules (`answers` for JSON that a cloud sends, `labels` for the names of labels,
`transfer` for a cloud that takes a disk in chunks, `visibility`), `clouduploader.model.disk` for what is said of
images, `clouduploader.model.vhd` for a cloud that takes a fixed VHD in pages, `clouduploader.errors`, and nothing else
of ours. Its entry point in the group `clouduploader.platforms` is the class, derived from `Platform`.

Some fields of target data have a meaning for the core, whichever platform declares them: `Field.FILENAME` (the image's
real name), `Field.SHA256` (the digest that the image file must have), `region` (`Context.region`, and where `cleanup`
looks), `architecture` (`UploadContext.architecture`) and `force` (an image that looks like no disk is taken).
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
