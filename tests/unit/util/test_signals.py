import os
import signal
import subprocess
import sys

import pytest

from clouduploader.errors import StoppedError
from clouduploader.util import signals
from clouduploader.util.cancel import Cancel


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.usefixtures("kept_signals")
def test_signal_becomes_a_request_with_its_own_exit_code(number):
    cancel = Cancel()
    signals.listen(cancel)
    os.kill(os.getpid(), number)
    with pytest.raises(StoppedError) as caught:
        cancel.raise_if_requested()
    assert caught.value.exit_code == 128 + number


@pytest.mark.usefixtures("kept_signals")
def test_signal_leaves_a_block_that_waits():
    cancel = Cancel()
    signals.listen(cancel)
    with pytest.raises(StoppedError), cancel.interruptible():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_signal_during_pythons_own_end_changes_nothing(number):
    program = f"""
import os
from clouduploader.util import signals
from clouduploader.util.cancel import Cancel

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {int(number)})

last = Last()
signals.listen(Cancel())
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
