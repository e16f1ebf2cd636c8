"""Server and worker killed by SIGKILL at random moments under load; then every job and byte is accounted for.

KILLS=300 in the environment makes a long run of it; SEED repeats one, as far as time can be repeated.
"""

import contextlib
import hashlib
import http.client
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from clouduploader.jobs import expire
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.store import spool
from clouduploader.util import processes
from clouduploader.worker import outcome, tracked

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
SERVER = """
import sys
from clouduploader.cli import main
from clouduploader.server import housekeeping
housekeeping.EXPIRE_SECONDS = 1.0  # not a minute
sys.exit(main.main())
"""
KILLS = int(os.environ.get("KILLS", "8"))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
JOBS_A_KILL = 3
MAX_IMAGE_BYTES = 100_000
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
    """A spool, what serves it and is killed, and the jobs that are to survive.

    Attributes:
        images: The digest of each job's image, by the job's name.
    """

    def __init__(self, place, chance):
        self.place, self.chance = place, chance
        self.jobs = spool.Spool(place / "cloudupload")
        for path in (self.jobs.directory, place / "now", place / "home"):
            path.mkdir()
        program = place / "uploader"
        program.write_text(UPLOADER)
        program.chmod(0o755)
        self._settings = place / "home/clouduploader.conf"
        self._settings.write_text(f"[worker]\nprogram = {program}\n[server]\nkeep_free = 1\n")
        self.images = {}
        self._processes = {}

    def start(self, *command):
        """Start a subcommand, unless it runs."""
        if command in self._processes:
            return
        program = [sys.executable, "-c", SERVER] if command[0] == "serve" else [EXECUTABLE]
        with (self.place / "site.log").open("ab") as log:
            self._processes[command] = subprocess.Popen(
                [*program, "--home", self.place / "home", "--spool", self.jobs.directory, *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def expire_after(self, seconds):
        with self._settings.open("a") as settings:
            settings.write(f"expire_seconds = {seconds}\n")

    def kill(self, *command):
        victim = self._processes.pop(command)
        victim.kill()
        assert victim.wait(PATIENCE_SECONDS) == -signal.SIGKILL, self.story()

    def kill_all(self):
        for command in list(self._processes):
            self.kill(*command)

    def stop(self):
        """End all as it should be."""
        for command in list(self._processes):
            leaving = self._processes.pop(command)
            leaving.terminate()
            # There may be so little to do that it is asked before it has got as far as to listen.
            assert leaving.wait(PATIENCE_SECONDS) in (0, -signal.SIGTERM), self.story()

    def random_image(self):
        return self.chance.randbytes(self.chance.randrange(1, MAX_IMAGE_BYTES))

    def expect(self, name, image):
        """Note what has to become of a job."""
        assert name not in self.images, self.story()
        self.images[name] = hashlib.sha256(image).hexdigest()

    def submit(self):
        """Give it a job, in OBS's order: data, image, record by a rename."""
        name = self.jobs.allocate()
        image = self.random_image()
        self.expect(name, image)
        self.jobs.data_path(name).write_bytes(b"{}")
        self.jobs.file_path(name).write_bytes(image)
        job = Job(name=name, state=JobState.SCHEDULED, user=self.chance.choice(USERS), target="t", size=len(image))
        path = self.jobs.directory / f".{name}.test"
        path.write_bytes(job_xml.serialize(job))
        path.replace(self.jobs.job_path(name))

    def wait_until_all_ended(self):
        deadline = time.monotonic() + PATIENCE_SECONDS + KILLS
        while self.jobs.running_names() or tracked.supervisors(self.jobs) or self.jobs.pending_cleanups():
            assert time.monotonic() < deadline, self.story()
            time.sleep(0.05)

    def lines(self, name):
        path = self.place / name
        return path.read_text().splitlines() if path.exists() else []

    def story(self):
        names = sorted(path.name for path in self.jobs.directory.iterdir())
        return f"SEED={SEED} {names}\n{(self.place / 'site.log').read_text()}"

    def started(self):
        """The jobs that were started, none of them twice."""
        names = [line.split()[0] for line in self.lines("starts")]
        assert len(names) == len(set(names)), self.story()
        return set(names)

    def check_limits(self):
        """Never did too many run at once."""
        counts = [line.split()[2:] for line in self.lines("starts")]
        assert max(int(all_running) for all_running, _ in counts) <= 4
        assert max(int(of_user) for _, of_user in counts) <= 2


@pytest.fixture
def chance():
    return random.Random(SEED)  # noqa: S311 no secret


@pytest.fixture
def site(tmp_path, chance):
    found = Site(tmp_path, chance)
    yield found
    found.kill_all()
    for pid in tracked.supervisors(found.jobs).values():
        os.killpg(pid, signal.SIGKILL)


def endure(site, strike):
    """Under load, kill the worker again and again, and each time do something more; then let it come to rest."""
    for _ in range(KILLS):
        site.start("worker")
        for _ in range(JOBS_A_KILL):
            time.sleep(site.chance.uniform(0, 0.2))
            site.submit()
        time.sleep(site.chance.uniform(0, 0.3))
        site.kill("worker")
        strike()
    site.start("worker")
    site.wait_until_all_ended()
    site.stop()


def test_worker_killed_at_any_moment_loses_no_job_and_starts_none_twice(site):
    endure(site, lambda: None)
    assert site.started() == set(site.images), site.story()
    site.check_limits()
    for name, digest in site.images.items():
        job, is_archived = site.jobs.read(name)
        assert (is_archived, job.state, job.details) == (True, JobState.SUCCEEDED, digest), site.story()


def test_machine_that_dies_at_any_moment_gives_the_truth(site):
    """As above, and one of the uploads dies too with all that belongs to it: as all would with the machine."""
    victims = set()

    def strike():
        found = tracked.supervisors(site.jobs)
        if found:
            name = site.chance.choice(sorted(found))
            victims.add(name)
            with processes.PidfdSet() as held:
                held.add(member for member in processes.all_processes().values() if member.group == found[name])
                held.kill()

    endure(site, strike)
    site.started()
    ends = set(site.lines("ends"))
    for name, digest in site.images.items():
        job, is_archived = site.jobs.read(name)
        assert is_archived, site.story()
        if job.state is JobState.SUCCEEDED:
            assert job.details == digest
            assert name in ends
        else:
            assert name in victims, site.story()
            assert job.details in (outcome.INTERRUPTED, f"{outcome.INTERRUPTED}; it had written: {digest}"), (
                site.story()
            )
    assert victims


class Clients:
    """People who send images to a server that is killed: some fast, some slowly, some in chunks.

    Attributes:
        sent: The jobs whose images were sent to their last byte.
        taken: Those of them of which the server said so.
        refusals: What it said else; it has no reason to.
    """

    def __init__(self, site, port):
        self._site, self._port = site, port
        self._is_over = threading.Event()
        self.sent, self.taken, self.refusals = set(), set(), []
        self._people = [threading.Thread(target=self._submit_on, args=(user,)) for user in USERS]

    def __enter__(self):
        for person in self._people:
            person.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        for person in self._people:
            person.join()

    def _submit_on(self, user):
        while not self._is_over.wait(self._site.chance.uniform(0, 0.4)):
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._submit(user)

    def _submit(self, user):
        image = self._site.random_image()
        fields = "&".join(f"{key}=x" for key in ("target", "project", "package", "repository", "arch", "filename"))
        answer = self._ask("POST", f"/cloudupload?user={user}&{fields}&size={len(image)}", b"{}")
        name = re.search('name="([0-9]+)"', answer)[1]
        self._site.expect(name, image)
        is_chunked = self._site.chance.random() < 0.3
        length = {} if is_chunked else {"Content-Length": str(len(image))}
        self._ask("PUT", f"/cloudupload/{name}", self._pieces(name, image), length, is_chunked)
        self.taken.add(name)

    def _pieces(self, name, image):
        """An image, perhaps with pauses."""
        pause = self._site.chance.choice((0, 0, 0.1))
        for start in range(0, len(image), MAX_IMAGE_BYTES // 4):
            time.sleep(pause)
            yield image[start : start + MAX_IMAGE_BYTES // 4]
        self.sent.add(name)

    def _ask(self, method, target, body, headers=types.MappingProxyType({}), is_chunked=False):
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(client):
            client.request(method, target, body, dict(headers), encode_chunked=is_chunked)
            answer = client.getresponse()
            text = answer.read().decode()
            if answer.status != 200:
                self.refusals.append(f"{method} {target}: {text}")
            return text


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_until_answered(port):
    """Wait until somebody listens; the worker begins before the server does, where they are one."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("is_apart", [False, True], ids=["one process", "two processes"])
def test_service_killed_at_any_moment_accounts_for_every_job_and_byte(site, is_apart):
    """Server and worker, one of them or both."""
    port = free_port()
    server = ("serve", "--listen", f"127.0.0.1:{port}", *(["--no-worker"] if is_apart else []))
    commands = [server, ("worker",)] if is_apart else [server]
    with Clients(site, port) as clients:
        for _ in range(KILLS):
            for command in commands:
                site.start(*command)
            if site.chance.random() < 0.8:
                wait_until_answered(port)
            time.sleep(site.chance.uniform(0, 0.5))
            for command in site.chance.sample(commands, site.chance.randint(1, len(commands))):
                site.kill(*command)
    site.kill_all()
    site.expire_after(1)
    time.sleep(1.1)
    for command in commands:
        site.start(*command)
    wait_until_answered(port)
    site.wait_until_all_ended()
    site.stop()

    assert clients.refusals == [], site.story()
    archived = {name: site.jobs.read(name)[0] for name in site.jobs.archived_names()}
    succeeded = {name for name, job in archived.items() if job.state is JobState.SUCCEEDED}
    assert site.started() == succeeded, site.story()
    site.check_limits()
    assert clients.taken
    assert clients.taken <= succeeded <= clients.sent, site.story()
    assert set(site.images) <= set(archived), site.story()
    for name, job in archived.items():  # more than we know of: a server may die before it tells us the name
        if name in succeeded:
            assert job.details == site.images[name], site.story()
        else:
            assert job.state is JobState.FAILED
            assert job.details == expire.DEAD or re.fullmatch("no image came within [0-9]+ seconds", job.details)
    files = {path.name for path in site.jobs.done_dir.iterdir()}
    assert files == set(archived) | {f"{name}.log" for name in succeeded}, site.story()
