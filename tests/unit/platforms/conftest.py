"""Requests for the platforms' tests."""

import pytest
from samples import uploads

from clouduploader.plugin.testing import MemoryJournal


@pytest.fixture
def make_journal(tmp_path):
    """Return a function that makes a journal without entries."""
    return lambda: MemoryJournal(tmp_path / "journal")


@pytest.fixture
def make_upload_request():
    """Return a function that makes a request for a raw image file; see samples.uploads."""
    return uploads.make_upload_request
