"""What a platform works with: the account, the way to tell what it does, and for an upload the image."""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from clouduploader.errors import (
    ClouduploaderError,
    ImageError,
    MissingProgramError,
    PlatformReplyError,
    TargetDataError,
    TransientError,
)
from clouduploader.model.disk import BlockSource, Encoding, ImageFacts, ImageStream, ZeroBlocks
from clouduploader.plugin import cleanup, labels, retry
from clouduploader.plugin.events import BytesMoved, PhaseStarted, Reporter
from clouduploader.plugin.fields import JsonValue
from clouduploader.plugin.objects import CloudObject
from clouduploader.plugin.request import UploadRequest
from clouduploader.plugin.resources import Resources, is_refusal
from clouduploader.util import deadline
from clouduploader.util.cancel import Cancel
from clouduploader.util.clock import Clock

if TYPE_CHECKING:
    from clouduploader.plugin.platform import Platform

T = TypeVar("T")

POLL_SECONDS = 3600.0  # a cloud that copies an image between its own stores takes up to an hour
TELL_SECONDS = 10.0  # ours: until then a try that failed is an everyday matter, and not worth a line


class Context:
    """One platform at work in one account.

    Args:
        platform: Whose errors are translated, and who connects.
        targetdata: Checked by the platform's fields and decrypted; may hold secrets. Empty where none were given.
        reporter: Told what is done.
        cancel: Looked at by all that waits.
        clock: What waits go by.
        region: Where; None for the target data's `region`.
        entries: What the journal of the upload that `find` looks for has, oldest first; empty where it is lost.
        key: Of the upload whose things are removed, see Journal; "" where that is not known.
        is_by_hand: Whether it is for the caller, so that the caller's own credentials serve where the target data have
            none; see `require_credential`.
        ensure_ours: See Journal; for what is done outside of an upload, nothing need be asked.

    Attributes:
        targetdata: As given; so are reporter, cancel, clock, entries, key, is_by_hand and ensure_ours.
        region: "" for a platform without regions, and where none was named.
    """

    def __init__(
        self,
        platform: "Platform",
        targetdata: Mapping[str, JsonValue],
        reporter: Reporter,
        cancel: Cancel,
        *,
        clock: Clock | None = None,
        region: str | None = None,
        entries: Sequence[Mapping[str, JsonValue]] = (),
        key: str = "",
        is_by_hand: bool = True,
        ensure_ours: Callable[[], None] = lambda: None,
    ) -> None:
        self._platform = platform
        self.ensure_ours = ensure_ours
        self.entries = entries
        self.key = key
        self.is_by_hand = is_by_hand
        self.targetdata = targetdata
        self.reporter = reporter
        self.cancel = cancel
        self.clock = clock or Clock()
        self.region = str(region or targetdata.get("region") or "")

    @functools.cached_property
    def client(self) -> Any:  # noqa: ANN401 whatever the platform's `connect` gives
        """The platform's client, connected when it is first needed.

        Raises:
            MissingProgramError: The platform's SDK is not installed.
            ClouduploaderError: There is no way in.
        """
        try:
            with self.translated("the cloud"):
                return self._platform.connect(self)
        except ModuleNotFoundError as exc:
            if not self._platform.requirement:
                raise
            raise MissingProgramError(
                f"the Python package {exc.name} is not installed",
                hint=f"pip install '{self._platform.requirement}'",
            ) from exc

    def require_credential(self, field: str, message: str, *, hint: str) -> None:
        """Refuse to go where this host's own credentials lead, unless that is for the caller; for `Platform.connect`.

        Args:
            field: Of the target data, which has the credential.
            message: What lacks; the field follows it.
            hint: What to do.

        Raises:
            TargetDataError: There is none, and what is done is for a user of the service.
        """
        if not self.targetdata.get(field) and not self.is_by_hand:
            raise TargetDataError(f"{message} ({field})", hint=hint)

    def uncancelled(self) -> "Context":
        """Return a context for the clean-up after an upload, which must not end by the cancellation of that.

        It has the same client, if there is one.
        """
        made = Context(
            self._platform,
            self.targetdata,
            self.reporter,
            Cancel(),
            clock=self.clock,
            region=self.region,
            key=self.key,
            is_by_hand=self.is_by_hand,
            ensure_ours=self.ensure_ours,
        )
        if "client" in vars(self):
            made.client = self.client
        return made

    @contextlib.contextmanager
    def translated(self, subject: str) -> Iterator[None]:
        """Turn what the platform's SDK raises inside into errors of ours, by `Platform.translate`.

        Args:
            subject: What is worked on, for the message.
        """
        try:
            yield
        except Exception as exc:
            ours = self._platform.translate(exc, subject)
            if ours is None:
                raise
            raise ours from exc

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Tell that a phase begins, and translate the errors in it.

        Args:
            name: A short lower-case word or two, for example "upload".
        """
        self.reporter.event(PhaseStarted(name))
        with self.translated(name):
            yield

    def retry(
        self,
        call: Callable[[], T],
        *,
        subject: str = "the cloud",
        seconds: float = retry.PATIENCE_SECONDS,
        may_pass: Callable[[ClouduploaderError], bool] = retry.is_transient,
    ) -> T:
        """Make a call until it is answered for good. The errors of the SDK are translated; tries that last are told.

        Args:
            call: What to call; may be made any number of times.
            subject: What is worked on, for the message.
            seconds: For how long another try is made.
            may_pass: Tells whether another try may help after an error.

        Raises:
            StoppedError: The upload was cancelled.
            ClouduploaderError: What the last call raised.
        """
        is_told = False

        def attempt() -> T:
            with self.translated(subject):
                return call()

        def tell(exc: ClouduploaderError, passed_seconds: float) -> None:
            nonlocal is_told
            self.reporter.detail(f"Trying again: {exc.message}")
            if passed_seconds >= TELL_SECONDS and not is_told:
                is_told = True
                self.reporter.line(f"Still trying: {exc.message}")

        return retry.retry(
            attempt, cancel=self.cancel, clock=self.clock, seconds=seconds, may_pass=may_pass, on_failure=tell
        )

    def within(self, seconds: float, call: Callable[[], T], *, subject: str = "the cloud") -> T:
        """Make a call of a library that may block for longer than is good, or for ever.

        The call is made in a thread of its own, and left there when the time is over: it must use nothing that the
        caller goes on with.

        Args:
            seconds: How long it may take; once the upload is cancelled, it gets a few seconds at most.
            call: What to call.
            subject: What is worked on, for the message.

        Raises:
            TransientError: It took longer.
            StoppedError: The upload was cancelled meanwhile.
            ClouduploaderError: What it raised, translated.
        """
        try:
            with self.translated(subject):
                return deadline.within(seconds, call, self.cancel)
        except deadline.OverdueError:
            self.cancel.raise_if_requested()
            raise TransientError(f"{subject}: no answer in {seconds:.0f} seconds") from None

    def poll(
        self,
        look: Callable[[], T],
        *,
        until: str,
        pending: Collection[str],
        state: Callable[[T], str] = lambda found: str(getattr(found, "status", found)),
        seconds: float = POLL_SECONDS,
    ) -> T:
        """Look at something until it is in a state. Blocks; each look is retried.

        Args:
            look: Returns it as it is now.
            until: The state that is waited for.
            pending: States in which it may still get there.
            state: Reads the state; the attribute `status` unless given.
            seconds: How long it may take.

        Returns:
            What the last look saw.

        Raises:
            PlatformReplyError: It is in another state.
            TransientError: It is still pending when the time is over.
            StoppedError: The upload was cancelled.
        """

        def settled() -> T | None:
            found = self.retry(look)
            if (now := state(found)) == until:
                return found
            if now not in pending:
                raise PlatformReplyError(f"it is {now}, and will not be {until}")
            return None

        found = retry.look_until(settled, seconds, cancel=self.cancel, clock=self.clock)
        if found is None:
            raise TransientError(f"it is not {until} after {seconds:.0f} seconds")
        return found


class UploadContext(Context):
    """One upload.

    Args:
        platform: See Context.
        request: What is to be uploaded.
        reporter: See Context.
        cancel: See Context.
        clock: See Context.

    Attributes:
        request: As given.
        resources: What this try has made so far.
    """

    def __init__(
        self,
        platform: "Platform",
        request: UploadRequest,
        reporter: Reporter,
        cancel: Cancel,
        *,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            platform,
            request.targetdata,
            reporter,
            cancel,
            clock=clock,
            key=request.journal.key,
            is_by_hand=request.is_by_hand,
            ensure_ours=request.journal.ensure_ours,
        )
        self.request = request
        self.resources = Resources(request.journal, reporter, self.clock)

    @functools.cached_property
    def labels(self) -> Mapping[str, str]:
        """Where the image comes from; see `labels.of_upload`."""
        return labels.of_upload(self.request)

    @contextlib.contextmanager
    def creating(
        self, kind: str, *, is_refused: Callable[[ClouduploaderError], bool] = is_refusal, **facts: JsonValue
    ) -> Iterator[Callable[[str], CloudObject]]:
        """Surround a request that makes something in the upload's region; see `Resources.creating`."""
        with (
            self.resources.creating(kind, self.region, is_refused=is_refused, **facts) as created,
            self.translated(kind),
        ):
            yield created

    def remove(self, things: Sequence[CloudObject]) -> list[CloudObject]:
        """Remove things that this upload or an earlier try of it made; see `cleanup.undo`."""
        return cleanup.undo(self._platform, self, things)

    def inspect_image(self) -> ImageFacts:
        """Tell what is in the image; see `UploadRequest.inspect_image`."""
        return self.request.inspect_image()

    def architecture(self, facts: ImageFacts, *, allowed: Collection[str]) -> str:
        """Choose the architecture: the target data's, or the image's, or x86_64 with a line in the log.

        Args:
            facts: From `inspect_image`.
            allowed: What the cloud has.

        Raises:
            ImageError: The image is for one that the cloud has not.
        """
        wanted = self.targetdata.get("architecture")
        if wanted:
            return str(wanted)
        fitting = [name for name in facts.architectures if name in allowed]
        if fitting:
            return fitting[0]
        if facts.architectures:
            raise ImageError(
                f"the image is for {' and '.join(facts.architectures)}, and the cloud has {', '.join(allowed)}"
            )
        self.reporter.line("The image does not tell its architecture; taking x86_64.")
        return "x86_64"

    def open_blocks(self, block_bytes: int, zero_blocks: ZeroBlocks) -> AbstractContextManager[BlockSource]:
        """Open the raw disk as blocks; see `UploadRequest.open_blocks`."""
        return self.request.open_blocks(block_bytes, zero_blocks)

    @contextlib.contextmanager
    def open_stream(self, encoding: str = Encoding.RAW, *, digest: str = "sha256") -> Iterator[ImageStream]:
        """Open the disk as one stream; see `UploadRequest.open_stream`.

        Each read tells how far it is, and raises StoppedError if the upload was cancelled.
        """
        with self.request.open_stream(encoding, digest) as stream:
            yield _ReportedStream(stream, self)


class _ReportedStream:
    """A stream that tells how much of it was read."""

    def __init__(self, stream: ImageStream, ctx: UploadContext) -> None:
        self.size_bytes = stream.size_bytes
        self._stream, self._ctx = stream, ctx
        self._done_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        self._ctx.cancel.raise_if_requested()
        piece = self._reported(self._stream.read(size))
        if size and not piece:
            self._report_end()
        return piece

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self._ctx.cancel.raise_if_requested()
            yield self._reported(piece)
        self._report_end()

    def hexdigest(self) -> str:
        return self._stream.hexdigest()

    def _report_end(self) -> None:
        """Tell the length of a stream of which it was not known before."""
        if self.size_bytes is None:
            self._ctx.reporter.event(BytesMoved(self._done_bytes, self._done_bytes))

    def _reported(self, piece: bytes) -> bytes:
        self._done_bytes += len(piece)
        self._ctx.reporter.event(BytesMoved(self._done_bytes, self.size_bytes))
        return piece
