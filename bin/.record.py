"""What bin/record runs in the sandbox: a terminal session as an SVG, and the server's page as a PNG."""

import fcntl
import json
import lzma
import os
import pty
import random
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text
from samples import image_disks

from clouduploader.sandbox.layout import VARIABLE, Layout

IMAGES = Path(__file__).parents[1] / "docs/images"
WIDTH = 100  # columns of the terminal
IMAGE = "my.x86_64.raw.xz"
DRY_RUN = f"clouduploader upload --dry-run --method ebs-direct --name my-image {IMAGE}"
UPLOAD = f"clouduploader upload --method ebs-direct --name my-image --copy-to eu-central-1 {IMAGE}"
SESSION = (DRY_RUN, UPLOAD, UPLOAD, "clouduploader list", "clouduploader log 2 --lines 7")
PAGE_PIXELS = "1280,580"
SECTORS, NOISE_BYTES = 128 << 11, 16 << 20  # of the images: 128 MiB, an eighth of them data
ERASED = re.compile(r"[^\n]*\n?(\x1b\[\?25h)?\r?(\x1b\[1A)?\r?\x1b\[2K")
"""A line of the progress that is erased by the next one, and the last of them when the work is done."""
SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: arial; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Rich's own, but for the fonts that a browser would have to get from elsewhere."""


def bootable_disk(seed: int) -> bytes:
    """Make a disk that boots by UEFI on x86_64, with noise in its second partition."""
    last = SECTORS - 34
    table = image_disks.gpt([(image_disks.ESP, 2048, 8191), (image_disks.LINUX, 8192, last)], sectors=SECTORS)
    loader = image_disks.fat({"EFI/BOOT/BOOTX64.EFI": image_disks.pe(image_disks.X64)}, bits=12)
    noise = random.Random(seed).randbytes(NOISE_BYTES)  # noqa: S311
    parts = ((0, table), (2048 * 512, loader), (8192 * 512, noise), ((SECTORS - 33) * 512, image_disks.gpt_copy(table)))
    disk = bytearray(SECTORS * 512)
    for start, content in parts:
        disk[start : start + len(content)] = content
    return bytes(disk)


def run_in_terminal(command: str, directory: Path) -> str:
    """Run a command in a terminal, and return what it has shown in the end, with its colours."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
    shown = b""
    with subprocess.Popen(
        shlex.split(command), stdin=its, stdout=its, stderr=its, cwd=directory, start_new_session=True
    ) as process:
        os.close(its)
        try:
            while piece := os.read(ours, 1 << 16):
                shown += piece
        except OSError:  # EIO: no process has the terminal open any more
            os.close(ours)
    if process.returncode:
        sys.exit(f"bin/record: {command} ended with {process.returncode}:\n{shown.decode()}")
    return ERASED.sub("", shown.decode().replace("\r\n", "\n"))


def record_session(directory: Path) -> None:
    """Write session.svg."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        for command in SESSION:
            console.print(Text(f"$ {command}", style="bold"))
            console.print(Text.from_ansi(run_in_terminal(command, directory)))
        svg = console.export_svg(title="clouduploader", code_format=SVG, unique_id="session")
    (IMAGES / "session.svg").write_text(svg)


def submit(user: str, name: str, image: Path, sandbox: dict[str, str], *options: str) -> None:
    """Hand an image to the server, and wait for the end of its job, whatever that is."""
    command = ["clouduploader", "submit", "--wait", "--user", user, "--method", "ebs-direct", "--name", name]
    command += ["--region", sandbox["region"], "--arn", sandbox["role_arn"], "--external-id", sandbox["external_id"]]
    subprocess.run([*command, *options, image], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def record_page(directory: Path, sandbox: dict[str, str]) -> None:
    """Write page.png, while job 1 is being uploaded."""
    other = directory / "appliance.x86_64.raw"
    other.write_bytes(bootable_disk(2))
    uploads = (
        ("tom", "my-server", directory / IMAGE),
        ("anna", "appliance", other, "--kms-key", "alias/none"),
        ("anna", "appliance", other),
    )
    with subprocess.Popen(["clouduploader", "serve"], stderr=subprocess.DEVNULL) as server:
        for user, name, image, *options in uploads:
            submit(user, name, image, sandbox, *options)
        browse = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        browse += [f"--user-data-dir={directory}/browser", f"--window-size={PAGE_PIXELS}", "--timeout=3000"]
        browse += [f"--screenshot={IMAGES / 'page.png'}", "http://127.0.0.1:5452/ui"]
        subprocess.run(browse, check=True, stderr=subprocess.DEVNULL)
        server.terminate()


def main() -> None:
    """Make the pictures."""
    layout = Layout(Path(os.environ[VARIABLE]))
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / IMAGE).write_bytes(lzma.compress(bootable_disk(1), preset=0))
        record_session(directory)
        record_page(directory, json.loads(layout.description.read_text()))


if __name__ == "__main__":
    main()
