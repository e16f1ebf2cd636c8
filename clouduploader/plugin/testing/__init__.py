"""The contract suite for authors of platforms, and stand-ins for what the core gives to a platform.

Install `clouduploader[testing]`, and write a fixture `case`, here in a module `my_package.contract_case`:

    import pytest
    from clouduploader.model.disk import Compression, Image
    from clouduploader.plugin import PlatformContext
    from clouduploader.plugin.testing import Case

    @pytest.fixture
    def case(tmp_path):
        image = tmp_path / "42.file"
        image.write_bytes(bytes(range(256)) * 16384)     # some MiB: it is stopped in the middle too
        return Case(
            reference="my_package.my_platform:MyPlatform",   # as in the entry point
            platform_context=PlatformContext(home=tmp_path, settings={...}, environment={}),
            targetdata={...},                                # such as the platform takes
            image=Image(image, "my.raw", Compression.RAW, image.stat().st_size),
            remaining=lambda: ...,                           # the names of all that is in the cloud
            sabotage=lambda: ...,                            # from now on an upload must fail
        )

Then run the suite:

    pytest --pyargs clouduploader.plugin.testing -p my_package.contract_case

or subclass `PlatformContract` and `UploadContract` in a test module of your own. `PlatformContract` touches no cloud;
`UploadContract` does: let `case` lead to a double of yours, which keeps what a request that broke has brought, as the
cloud does. `AccountsContract` is for platforms that have accounts, and is used by subclassing only.
"""

import pytest

pytest.register_assert_rewrite("clouduploader.plugin.testing.contract")

from clouduploader.plugin.testing.contract import (  # noqa: E402 after the asserts in it can be told of
    AccountsContract,
    Case,
    PlatformContract,
    UploadContract,
)
from clouduploader.plugin.testing.fakes import (  # noqa: E402
    FakeClock,
    LostUploadError,
    MemoryBlocks,
    MemoryJournal,
    RecordingReporter,
    facts_of,
    make_request,
    opened_blocks,
    opened_stream,
    upload,
)

__all__ = [
    "AccountsContract",
    "Case",
    "FakeClock",
    "LostUploadError",
    "MemoryBlocks",
    "MemoryJournal",
    "PlatformContract",
    "RecordingReporter",
    "UploadContract",
    "facts_of",
    "make_request",
    "opened_blocks",
    "opened_stream",
    "upload",
]
