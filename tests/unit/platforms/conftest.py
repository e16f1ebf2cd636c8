"""Requests for the platforms' tests, with small doubles of what reads images and of the journal."""

import contextlib
import json
from pathlib import Path

import pytest

from clouduploader.model.disk import Block, Compression, DiskFormat, Image, ImageFacts, ReadStats
from clouduploader.plugin import UploadRequest


class MemoryJournal:
    """A journal that lasts as long as the object; its directory is made when it is asked for."""

    key = "0123456789abcdef0123456789abcdef"

    def __init__(self, path):
        self._path = path
        self._entries = []

    @property
    def directory(self):
        self._path.mkdir(mode=0o700, exist_ok=True)
        return self._path

    def entries(self):
        return list(self._entries)

    def write(self, what, **values):
        self._entries.append(json.loads(json.dumps({"what": what, **values})))


class Blocks:
    """The blocks of a file that is not packed; for one thread."""

    can_reread = False

    def __init__(self, data, block_bytes):
        self._data, self._block_bytes, self._next = data, block_bytes, 0

    def next_into(self, buffer):
        piece = self._data[self._next * self._block_bytes :][: self._block_bytes]
        if not piece:
            return None
        buffer[:] = piece.ljust(self._block_bytes, b"\0")
        self._next += 1
        return Block(self._next - 1, not piece.strip(b"\0"))

    def reread_into(self, index, buffer):
        raise AssertionError("can_reread is false")

    def position(self):
        return min(self._next * self._block_bytes, len(self._data))

    def tally(self):
        return ReadStats(
            size_bytes=len(self._data), data_blocks=self._next, zero_blocks=0, hole_blocks=0, skipped_blocks=0,
            file_sha256=None, raw_sha256=None,
        )  # fmt: skip


def facts_of(size_bytes):
    return ImageFacts(
        disk_format=DiskFormat.RAW, size_bytes=size_bytes, is_size_exact=True, partition_table=None, minimum_bytes=0,
        architectures=(), boots_uefi=False, boots_bios=False,
    )  # fmt: skip


@pytest.fixture
def make_journal(tmp_path):
    """A factory of journals that know nothing yet."""
    return lambda: MemoryJournal(tmp_path / "journal")


@pytest.fixture
def make_upload_request():
    """A factory of requests for a raw image file that exists; everything can be given instead."""

    def make(path, work_dir, **changes):
        path = Path(path)
        size_bytes = path.stat().st_size if path.is_file() else 0

        def open_blocks(block_bytes, _zero_blocks):
            return contextlib.nullcontext(Blocks(path.read_bytes(), block_bytes))

        fields = {
            "user": "tom",
            "job_name": None,
            "arch": None,
            "image": Image(path, path.name, Compression.RAW, size_bytes),
            "targetdata": {},
            "work_dir": work_dir,
            "is_by_hand": False,
            "measure_image": lambda: size_bytes,
            "inspect_image": lambda: facts_of(size_bytes),
            "open_blocks": open_blocks,
            "check_unchanged": lambda _sha256=None: None,
            "journal": MemoryJournal(Path(f"{work_dir}.journal")),
            "provenance": {},
        }
        return UploadRequest(**(fields | changes))

    return make
