import subprocess
import sys


def test_collector_is_rare_at_the_start_and_usual_in_a_service():
    code = (
        "import gc; usual = gc.get_threshold(); from clouduploader.cli import collector, main\n"
        "main.main(['platforms', '-q']); rare = gc.get_threshold()\n"
        "collector.collect_as_usual(); print(); print(gc.get_threshold() == usual, rare[0] > 100 * usual[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True True"
