import os
import subprocess

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ImageError, LocalIOError
from clouduploader.image import file_digest

NAME = "openSUSE.x86_64-1.0-Build2.3.raw.xz"
ONE, TWO = "1" * 64, "2b" * 32
SIGNED = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

{ONE}  {NAME}
-----BEGIN PGP SIGNATURE-----
Version: GnuPG v2.0.15 (GNU/Linux)

iQEcBAEBCAAGBQJm
=abcd
-----END PGP SIGNATURE-----
"""


@pytest.fixture
def make_image(tmp_path):
    """A factory of an image beside which lies this checksum file; returns the image's path."""

    def make(text, *, directory="images"):
        path = tmp_path / directory / NAME
        path.parent.mkdir()
        path.write_bytes(b"image")
        if text is not None:
            (path.parent / f"{NAME}.sha256").write_text(text)
        return path

    return make


def promised(text):
    return file_digest.parse(text.encode(), NAME, where="a.sha256")


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}  {NAME}\n",
        f"{ONE} *{NAME}\n",
        f"{ONE}  ./build/{NAME}",
        f"\n{ONE}\t{NAME}\r\n\n",
        f"{TWO}  other.raw\n{ONE}  {NAME}\n{TWO} *third\n",
        f"{ONE}  {NAME}\n{ONE} *{NAME}\n",
        f"{ONE}\n",
        ONE,
        f"SHA256 ({NAME}) = {ONE}\n",
        f"\\{TWO}  strange\\nname\n{ONE}  {NAME}\n",
        SIGNED,
        SIGNED.replace(f"{ONE}  {NAME}", f"{TWO}  other\n{ONE}  {NAME}"),
        SIGNED.replace("Hash: SHA256\n", ""),
    ],
)
def test_promise_is_found(text):
    assert promised(text) == ONE


def test_digits_are_given_in_lower_case():
    assert promised(f"{'AB' * 32}  {NAME}") == "ab" * 32


@pytest.mark.parametrize("text", [f"{ONE}  other.raw\n", f"SHA256 (other) = {ONE}\n", SIGNED.replace(NAME, "other")])
def test_only_promise_there_is_counts_whatever_it_names(text):
    """As OBS publishes it for an image under a second name."""
    assert promised(text) == ONE


def test_promises_for_others_are_an_error():
    with pytest.raises(ImageError, match="has checksums of other files only"):
        promised(f"{ONE}  other.raw\n{TWO}  another.raw\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a.sha256 is empty"),
        ("\n \n", "a.sha256 is empty"),
        (f"{ONE}  {NAME}\n<html>\n", "line 2 of a.sha256 is not a SHA-256 and a file name"),
        (f"{ONE[1:]}  {NAME}", "line 1"),
        (f"{ONE}0  {NAME}", "line 1"),
        (f"{ONE}  {NAME}\n{TWO}  {NAME}\n", "promises different checksums"),
        (f"{ONE}  {NAME}\n{TWO}\n", "promises different checksums"),
        (SIGNED.partition("-----BEGIN PGP SIGNATURE")[0], "cut off"),
        ("-----BEGIN PGP SIGNED MESSAGE-----", "cut off"),
        (SIGNED.replace(ONE, "none"), "line 4"),
    ],
)
def test_garbage_is_an_error_that_says_where(text, words):
    with pytest.raises(ImageError, match=words):
        promised(text)


def test_lines_outside_of_the_signed_text_do_not_count():
    assert promised(f"{TWO}  {NAME}\n{SIGNED}") == ONE


def test_file_of_sha256sum_is_understood(make_image):
    path = make_image(None)
    output = subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True).stdout
    path.with_name(f"{NAME}.sha256").write_text(output)
    assert file_digest.find(path, NAME) == output[:64]


def test_file_beside_the_image_is_read(make_image):
    assert file_digest.find(make_image(SIGNED), NAME) == ONE


def test_file_beside_what_a_link_leads_to_is_read(make_image, tmp_path):
    link = tmp_path / "42.file"
    link.symlink_to(make_image(f"{ONE}  {NAME}"))
    assert file_digest.find(link, NAME) == ONE


def test_no_file_is_no_promise(make_image):
    assert file_digest.find(make_image(None), NAME) is None


def test_directory_of_that_name_is_no_promise(make_image):
    path = make_image(None)
    path.with_name(f"{NAME}.sha256").mkdir()
    assert file_digest.find(path, NAME) is None


def test_pipe_of_that_name_does_not_block(make_image):
    path = make_image(None)
    os.mkfifo(path.with_name(f"{NAME}.sha256"))
    assert file_digest.find(path, NAME) is None


def test_name_that_is_too_long_for_a_file_is_no_promise(tmp_path):
    assert file_digest.find(tmp_path / "a", "a" * 255) is None


def test_huge_file_is_an_error(make_image):
    path = make_image(f"{ONE}  {NAME}\n" + f"{ONE}  other\n" * 20000)
    with pytest.raises(ImageError, match="has more than 1048576 bytes"):
        file_digest.find(path, NAME)


def test_file_that_can_not_be_read_is_an_error(make_image, tmp_path):
    path = make_image(None)
    path.with_name(f"{NAME}.sha256").symlink_to("/proc/self/mem")
    with pytest.raises(LocalIOError, match="can't be read"):
        file_digest.find(path, NAME)


@hypothesis.given(
    st.binary()
    | st.lists(st.sampled_from([ONE, NAME, "  ", "\n", "- ", *SIGNED.splitlines(keepends=True)])).map(
        lambda parts: "".join(parts).encode()
    )
)
def test_any_bytes_give_a_digest_or_an_error(data):
    try:
        digest = file_digest.parse(data, NAME, where="a")
    except ImageError:
        return
    assert digest is None or digest == ONE
