"""The worker killed by SIGKILL at random moments under load; then every job and byte is accounted for.

KILLS=300 in the environment makes a long run of it; SEED repeats one, as far as time can be repeated.
"""

import collections
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clouduploader import jobxml, process, spool
from clouduploader.dispatcher import ending, running
from clouduploader.job import Job, JobState

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
KILLS = int(os.environ.get("KILLS", "12"))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
JOBS_A_KILL = 3
USERS = ("ann", "bob", "tom")
PATIENCE_SECONDS = 60

UPLOADER = """#!/bin/sh
# Notes each start and end, one write each, and how many of its kind run now; its result tells what it has read.
place=${3%/*/*} job=${3##*/}
mkdir "$place/now/$1:${job%.file}"
echo "${job%.file} $1 $(ls "$place/now" | wc -l) $(ls "$place/now" | grep -c "^$1:")" >> "$place/starts"
sleep 0.$(( $(od -An -N1 -tu1 /dev/urandom) + 50 ))
printf "%s" "$(sha256sum < "$3" | cut -c1-64)" > "$6"
echo "${job%.file}" >> "$place/ends"
rmdir "$place/now/$1:${job%.file}"
"""


class Site:
    """A spool, the worker that is killed, and the jobs that are to survive."""

    def __init__(self, place, chance):
        self.place, self._random = place, chance
        self.jobs = spool.Spool(place / "cloudupload")
        for path in (self.jobs.directory, place / "now", place / "home"):
            path.mkdir()
        program = place / "uploader"
        program.write_text(UPLOADER)
        program.chmod(0o755)
        (place / "home/clouduploader.conf").write_text(f"[worker]\nprogram = {program}\n")
        self.images = {}
        self._worker = None

    def start(self):
        with (self.place / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(
                [EXECUTABLE, "--home", self.place / "home", "--spool", self.jobs.directory, "worker"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self, number):
        self._worker.send_signal(number)
        return self._worker.wait(PATIENCE_SECONDS)

    def submit(self):
        """Give it a job, in OBS's order: data, image, record by a rename."""
        name = self.jobs.allocate()
        image = self._random.randbytes(self._random.randrange(1, 100_000))
        self.images[name] = hashlib.sha256(image).hexdigest()
        self.jobs.data_path(name).write_bytes(b"{}")
        self.jobs.file_path(name).write_bytes(image)
        job = Job(name=name, state=JobState.SCHEDULED, user=self._random.choice(USERS), target="t", size=len(image))
        path = self.jobs.directory / f".{name}.test"
        path.write_bytes(jobxml.serialize(job))
        path.replace(self.jobs.job_path(name))

    def wait_until_all_ended(self):
        deadline = time.monotonic() + PATIENCE_SECONDS + KILLS
        while self.jobs.running_names() or running.supervisors(self.jobs.directory):
            assert time.monotonic() < deadline, self.story()
            time.sleep(0.05)

    def lines(self, name):
        path = self.place / name
        return path.read_text().splitlines() if path.exists() else []

    def story(self):
        names = sorted(path.name for path in self.jobs.directory.iterdir())
        return f"SEED={SEED} {names}\n{(self.place / 'worker.log').read_text()}"


@pytest.fixture
def site(tmp_path):
    found = Site(tmp_path, random.Random(SEED))  # noqa: S311 no secret
    yield found
    found.kill(signal.SIGKILL)
    for pid in running.supervisors(found.jobs.directory).values():
        os.killpg(pid, signal.SIGKILL)


def endure(site, chance, strike):
    """Under load, kill the worker again and again, and each time do something more; then let it come to rest."""
    for _ in range(KILLS):
        site.start()
        for _ in range(JOBS_A_KILL):
            time.sleep(chance.uniform(0, 0.2))
            site.submit()
        time.sleep(chance.uniform(0, 0.3))
        assert site.kill(signal.SIGKILL) == -signal.SIGKILL, site.story()
        strike()
    site.start()
    site.wait_until_all_ended()


def test_worker_killed_at_any_moment_loses_no_job_and_starts_none_twice(site):
    chance = random.Random(SEED)  # noqa: S311 no secret
    endure(site, chance, lambda: None)
    assert site.kill(signal.SIGTERM) == 0
    starts = [line.split() for line in site.lines("starts")]
    assert sorted(job for job, *_ in starts) == sorted(site.images), site.story()
    for name, digest in site.images.items():
        job, is_archived = site.jobs.read(name)
        assert (is_archived, job.state, job.details) == (True, JobState.SUCCEEDED, digest), site.story()
    assert max(int(count) for _, _, count, _ in starts) <= 4
    assert max(int(count) for _, _, _, count in starts) <= 2
    assert nothing_is_left(site)


def test_machine_that_dies_at_any_moment_gives_the_truth(site):
    """As above, and one of the uploads dies too with all that belongs to it: as all would with the machine."""
    chance = random.Random(SEED)  # noqa: S311 no secret
    victims = set()

    def strike():
        found = running.supervisors(site.jobs.directory)
        if found:
            name = chance.choice(sorted(found))
            victims.add(name)
            with process.Held() as held:
                held.add(member for member in process.everybody().values() if member.group == found[name])
                held.kill()

    endure(site, chance, strike)
    assert site.kill(signal.SIGTERM) == 0
    starts = collections.Counter(line.split()[0] for line in site.lines("starts"))
    assert max(starts.values()) == 1, site.story()
    ends = set(site.lines("ends"))
    for name, digest in site.images.items():
        job, is_archived = site.jobs.read(name)
        assert is_archived, site.story()
        if job.state is JobState.SUCCEEDED:
            assert job.details == digest
            assert name in ends
        else:
            assert name in victims, site.story()
            assert job.details in (ending.INTERRUPTED, f"{ending.INTERRUPTED}; it had written: {digest}"), site.story()
    assert victims
    assert nothing_is_left(site)


def nothing_is_left(site):
    return {path.name for path in site.jobs.directory.iterdir()} == {".worker.lock", "done", "next"}
