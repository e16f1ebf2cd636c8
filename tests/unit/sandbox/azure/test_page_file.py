import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.model import vhd
from clouduploader.sandbox.azure.page_file import PAGE_BYTES, PageFile

PAGES = 16
MIB = 1 << 20


@hypothesis.given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, PAGES - 1), st.integers(1, PAGES)), max_size=12)
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_ranges_are_what_was_written_and_not_cleared(tmp_path_factory, steps):
    file = PageFile(tmp_path_factory.mktemp("pages") / "file", PAGES * PAGE_BYTES)
    written = [False] * PAGES
    for is_written, first, count in steps:
        last = min(PAGES, first + count)
        if is_written:
            file.write(first * PAGE_BYTES, b"x" * ((last - first) * PAGE_BYTES))
        else:
            file.clear(first * PAGE_BYTES, (last - first) * PAGE_BYTES)
        written[first:last] = [is_written] * (last - first)
    found = [any(start <= page * PAGE_BYTES < end for start, end in file.ranges) for page in range(PAGES)]
    assert found == written
    assert all(before[1] < after[0] for before, after in zip(file.ranges, file.ranges[1:], strict=False))
    content = b"".join((b"x" if page else b"\0") * PAGE_BYTES for page in written)
    assert file.path.read_bytes() == content


@pytest.mark.parametrize(
    ("footer", "said"),
    [
        (vhd.fixed_footer(MIB, bytes(16)), None),
        (bytes(512), "cookie"),
        (vhd.fixed_footer(2 * MIB, bytes(16)), "whole number of MBs"),
        (vhd.fixed_footer(MIB, bytes(16))[:-1] + b"x", "checksum"),
    ],
)
def test_vhd_that_azure_would_not_take_is_said(tmp_path, footer, said):
    file = PageFile(tmp_path / "file", MIB + 512)
    file.write(MIB, footer)
    assert (file.vhd_problem() is None) is (said is None)
    assert (said or "") in (file.vhd_problem() or "")
