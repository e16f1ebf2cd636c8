"""Requests for the platforms' tests."""

import dataclasses
from pathlib import Path

import pytest

from clouduploader.model.disk import Compression, Image
from clouduploader.plugin.testing import MemoryJournal, make_request


@pytest.fixture
def make_journal(tmp_path):
    """Return a function that makes a journal without entries."""
    return lambda: MemoryJournal(tmp_path / "journal")


@pytest.fixture
def make_upload_request():
    """Return a function that makes a request for a raw image file that exists; everything can be given instead."""

    def make(path, work_dir, **changes):
        path = Path(path)
        image = Image(path, path.name, Compression.RAW, path.stat().st_size if path.is_file() else 0)
        journal = MemoryJournal(Path(f"{work_dir}.journal"))
        request = make_request(image, {}, work_dir)
        defaults = {"user": "tom", "job_name": None, "arch": None, "provenance": {}, "journal": journal}
        return dataclasses.replace(request, **(defaults | changes))

    return make
