"""A spool, an uploader that a test writes in shell, and a worker that runs in a thread."""

import os
import threading
import time

from clouduploader import worker
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.store import config, journal
from clouduploader.worker import control, settings

PATIENCE_SECONDS = 30  # a loaded machine is slow, not broken; only a failing test waits that long

NO_PID = 2**22  # above the largest pid there can be (PID_MAX_LIMIT of Linux, less one)


class Bench:
    """A spool with its worker.

    Attributes:
        jobs: The spool, in a directory as OBS has it.
        events: Of the worker: (kind, job, text).
        ends: Of uploads: (kind, job, UploadEnd).
    """

    def __init__(self, jobs, tmp_path):
        self.jobs = jobs
        self.events = []
        self.ends = []
        self._home = tmp_path / "home"
        self._home.mkdir(parents=True)
        self._program = tmp_path / "uploader"
        self._bin = tmp_path / "bin"
        self._settings = {}
        self._control = None
        self._thread = None
        self._error = None
        self.set(program=self._program)

    def set(self, **values):
        """Write settings."""
        self._settings |= values
        lines = [f"{key} = {value}" for key, value in self._settings.items()]
        (self._home / "clouduploader.conf").write_text("\n".join(["[worker]", *lines]))

    def write_uploader(self, script, *, head="#!/bin/sh"):
        """Write the uploader: a shell script with OBS's arguments; `job` is the job's id."""
        text = f"{head}\njob=${{3##*/}}\njob=${{job%.file}}\n{script}\n"
        new_path = self._program.with_name("uploader.new")
        new_path.write_text(text)
        new_path.chmod(0o755)
        new_path.replace(self._program)

    def write_own(self, script):
        """Write what stands for `clouduploader`, which cleans up."""
        self._bin.mkdir(exist_ok=True)
        path = self._bin / "clouduploader"
        path.write_text(f'#!/bin/sh\necho "own $@"\n{script}\n')
        path.chmod(0o755)

    def config(self, **environment):
        path = f"{self._bin}{os.pathsep}{os.environ['PATH']}" if self._bin.exists() else os.environ["PATH"]
        return config.load(home=self._home, spool=self.jobs.directory, environment={"PATH": path, **environment})

    def schedule(self, name, *, data=b"{}", **fields):
        """Put a job into the spool as OBS's server does when it has the image; the record comes by a rename."""
        if data is not None:
            self.jobs.data_path(name).write_bytes(data)
        self.jobs.file_path(name).write_bytes(b"image")
        defaults = {"state": JobState.SCHEDULED, "created": 1795361942, "user": "tom", "target": "ec2", "size": 5}
        job = Job(name=name, **{**defaults, "filename": "a.raw.xz", **fields})
        self.write_record(job)
        return job

    def schedule_uploading(self, name="1", **fields):
        """Put a job into the spool in state uploading, of a process that is gone."""
        return self.schedule(name, state=JobState.UPLOADING, **{"pid": NO_PID, **fields})

    def write_journal(self, key, name, outcome, directory):
        """Write the journal of a job's upload; the upload is still open if there is no outcome."""
        beginning = journal.UploadStart(
            job=name, user="tom", target="ec2", filename="a", image_path=directory, is_by_hand=False, work_dir=directory
        )
        with journal.open_journal(self.config().state.value, key) as opened:
            opened.begin(beginning, b"{}")
            if outcome:
                opened.write("end", outcome=outcome, result="ami-1", objects=[], shortfalls=[])

    def write_record(self, job):
        path = self.jobs.directory / f".{job.name}.test"
        path.write_bytes(job_xml.serialize(job))
        path.replace(self.jobs.job_path(job.name))

    def start(self, **environment):
        """Start the worker, and wait until it is ready."""
        self._control, self._error = control.WorkerControl(), None
        loaded = self.config(**environment)
        count = len(self.events)

        def run():
            try:
                worker.run(
                    loaded,
                    settings=lambda: settings.read(self.config(**environment)),
                    control=self._control,
                    on_event=self._note,
                )
            except BaseException as exc:  # noqa: BLE001 handed to the thread of the test
                self._error = exc

        self._thread = threading.Thread(target=run)
        self._thread.start()
        self.wait_for(lambda: self._error or any(kind == "ready" for kind, _, _ in self.events[count:]))
        if self._error:
            self.join()
        return self._control

    def _note(self, event):
        if event.end:
            self.ends.append((str(event.kind), event.job, event.end))
        self.events.append((str(event.kind), event.job, event.text))

    def join(self):
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        self._control.close()
        self._thread = None
        if self._error:
            raise self._error

    def stop(self):
        """End the worker, if it runs; its uploads go on."""
        if self._thread:
            self._control.leave()
            self.join()

    def wait_for(self, condition):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"it never came true; {self.events}"
            time.sleep(0.01)

    def wait_for_event(self, kind, name):
        """Wait for an event of the worker, and return its text."""
        self.wait_for(lambda: any(event[:2] == (kind, name) for event in self.events))
        return next(text for found, job, text in self.events if (found, job) == (kind, name))

    def wait_for_end(self, name):
        """Wait until a job is archived, and no process works on it; return it."""
        self.wait_for(lambda: self.jobs.done_path(name).exists() and not self.jobs.job_path(name).exists())
        return self.jobs.read(name)[0]

    def log(self, name):
        for path in (self.jobs.log_path(name), self.jobs.done_log_path(name)):
            if path.exists():
                return path.read_text()
        return ""

    def job(self, name):
        return self.jobs.read(name)[0]

    def files(self):
        return sorted(path.name for path in self.jobs.directory.iterdir())

    def release(self, name):
        """Let an uploader go on that waits by HOLD."""
        (self.jobs.directory.parent / f"go{name}").touch()


HOLD = 'while [ ! -e "${3%/*/*}/go$job" ]; do sleep 0.02; done'
