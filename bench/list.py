"""`list` and `list --json` over archived jobs: time, peak memory, and how both grow.

.venv/bin/python bench/list.py [--rounds 5] [--jobs 1000 10000 100000]
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState

PROGRAM = Path(sys.executable).parent / "clouduploader"
MEASURE = """
import json, os, sys, time
began = time.monotonic()
null = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[null])
_, status, usage = os.wait4(pid, 0)
print(json.dumps([status, time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""
"""Run in a bare interpreter: a child's peak memory counts from that of the process that started it."""

JOB = Job(
    name="1",
    state=JobState.SUCCEEDED,
    details="ami-0123456789abcdef0",
    created=1513604055,
    user="tom",
    target="ec2",
    project="home:tom:branches:openSUSE:Leap",
    repository="images",
    package="openSUSE-Leap-EC2",
    arch="x86_64",
    filename="openSUSE-Leap-EC2.x86_64-15.6.0-Build7.1.raw.xz",
    size=512 << 20,
)


def grow(spool, count):
    """Put jobs into the archive until there are so many."""
    done = spool / "done"
    done.mkdir(exist_ok=True)
    for number in range(sum(1 for _ in done.iterdir()) + 1, count + 1):
        job = dataclasses.replace(JOB, name=str(number), created=JOB.created + number)
        (done / str(number)).write_bytes(job_xml.serialize(job))


def measure(*command):
    """Run a command; return its wall and CPU time in s, and its peak memory in MiB."""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", MEASURE, *command], stdout=subprocess.PIPE, check=True)
    status, wall, cpu, peak_kib = json.loads(done.stdout)
    if status:
        sys.exit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    return wall, cpu, peak_kib / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    print(f"{options.rounds} rounds, medians")
    print(f"{'jobs':>8} {'command':20} {'wall s':>8} {'CPU s':>8} {'ms a job':>9} {'peak MiB':>9}")
    with tempfile.TemporaryDirectory() as directory:
        spool = Path(directory)
        for count in sorted(options.jobs):
            grow(spool, count)
            for words in (["list"], ["list", "--json"], ["list", "--limit", "50"]):
                runs = [measure(PROGRAM, "--spool", spool, *words) for _ in range(options.rounds + 1)][1:]
                wall, cpu, peak = (statistics.median(run[index] for run in runs) for index in range(3))
                print(
                    f"{count:8} {' '.join(words):20} {wall:8.2f} {cpu:8.2f} {wall / count * 1000:9.4f} {peak:9.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
