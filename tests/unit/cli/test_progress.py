import subprocess
import sys

CODE = """
from clouduploader.cli import progress
from clouduploader.plugin import BytesMoved, CloudObject, ObjectCreated, PhaseStarted
with progress.ProgressView() as view:
    view(BytesMoved(1, 2))
    view(ObjectCreated(CloudObject("image", "ami-1")))
    view(PhaseStarted("check [bold]image[/nonsense]"))
    view._view.refresh()
    view(PhaseStarted("upload"))
    view(BytesMoved(3 << 20, 12 << 20))
    view._view.refresh()
    view(BytesMoved(5 << 20, None))
    view._view.refresh()
print("end")
"""


def test_view_shows_phase_and_bytes_on_a_terminal_and_leaves_nothing(run_on_terminal):
    shown = run_on_terminal(CODE, columns=120)
    assert "check [bold]image[/nonsense]" in shown
    assert "upload" in shown
    assert "3.0/12.0 MiB" in shown
    assert "5.0/? MiB" in shown
    assert "ami-1" not in shown
    assert shown.rstrip().endswith("end")


def test_view_writes_no_escapes_where_there_is_no_terminal():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "end\n"
    assert "\x1b" not in done.stderr
