"""Brings about every job file that OBS's backend writes, for tests/data/jobs.

Run as a script it writes them there anew. A test compares what is there with what the backend
writes today.
"""

import contextlib
import re
import tempfile
from pathlib import Path

from e2e.obs.obs_backend import Backend, BackendError

DATA_DIR = Path(__file__).resolve().parents[2] / "data/jobs"
IMAGE = b"image"
SLEEP = b"exec sleep 1000"

SCRIPT_UPLOADER = """\
#!/bin/sh
exec /bin/sh -e "$4" "$6"
"""
"""An uploader that runs its target data as a shell script, whose $1 is the result file."""

ENDED: dict[str, tuple[bytes, dict[str, str]]] = {
    "succeeded": (b'printf ami-0123456789abcdef0 >"$1"', {}),
    "succeeded-without-details": (b"", {}),
    "succeeded-empty-details": (b': >"$1"', {}),
    "succeeded-blank-details": (b'printf " \\n\\t" >"$1"', {}),
    "succeeded-details-with-final-newline": (b'echo ami-1 >"$1"', {}),
    "succeeded-details-of-two-lines-in-utf8": (b'printf "line1\xc3\xa4\\nline2" >"$1"', {}),
    "succeeded-details-with-markup": (b'printf \'<a>&"b"]]>\' >"$1"', {}),
    "succeeded-details-with-carriage-return": (b'printf "50%%\\r100%%" >"$1"', {}),
    "failed": (b"exit 3", {}),
    "failed-with-reason": (b'printf "quota exceeded" >"$1"; exit 3', {}),
    "failed-by-signal": (b"kill -KILL $$", {}),
    "unparsable-escape-in-details": (b'printf "\\033[31mred" >"$1"', {}),
    "unparsable-latin1-in-details": (b'printf "schl\\344gt fehl" >"$1"; exit 1', {}),
    "user-with-markup": (b"", {"user": 'mls&<chroe> "x" o\'brien'}),
    "user-in-utf8": (b"", {"user": "Jürgen 木村 \N{ROCKET}"}),
    "user-like-an-option": (b"", {"user": "-king"}),
    "user-between-blanks": (b"", {"user": "  tom "}),
    "user-with-tab-and-newline": (b"", {"user": "tom\tand\njerry"}),
    "user-with-carriage-return": (b"", {"user": "tom\rjerry"}),
    "multibuild-package": (b"", {"package": "kiwi-images:Azure"}),
    "filename-with-slashes": (b"", {"filename": "../../etc/passwd"}),
    "filename-with-markup": (b"", {"filename": "rpm-4.14.0 \"x\"&'y'.x86_64.raw.xz"}),
}
"""Jobs that went their whole way, by the name of their file: the uploader's script, the fields."""


def write_script_uploader(bin_dir: Path) -> None:
    """Put the scripted `clouduploader` into a directory, made here."""
    bin_dir.mkdir()
    program = bin_dir / "clouduploader"
    program.write_text(SCRIPT_UPLOADER)
    program.chmod(0o755)


def capture(backend: Backend) -> dict[str, bytes]:
    """Bring about each kind of job file on a fresh backend with the scripted uploader.

    Returns:
        The files' bytes by the name they have in tests/data/jobs.
    """
    found = {}
    for name, (script, fields) in ENDED.items():
        job = backend.submit(script, IMAGE, **fields)
        found[name] = _archived(backend, job)
    found |= _unfinished(backend)
    found |= _failed_reception(backend)
    found["progress-and-try"] = _with_progress_and_try(backend)
    found["next"] = (backend.spool / "next").read_bytes()
    backend.kill("next")  # a defect of the server, which takes the counter for a job
    found["next-killed"] = backend.archived("next")
    return {f"{name}.xml": content for name, content in found.items()}


def without_numbers(content: bytes) -> bytes:
    """A job file without what differs from run to run: its id, its time, its process."""
    content = re.sub(rb'name="\d+"', b'name="N"', content)
    return re.sub(rb"<(created|pid)>\d+<", rb"<\1>N<", content)


def _archived(backend: Backend, job: str) -> bytes:
    # By the file, because some of these jobs can't be read through the server.
    backend.wait_until(lambda: not (backend.spool / job).exists(), f"job {job} is archived")
    return backend.archived(job)


def _unfinished(backend: Backend) -> dict[str, bytes]:
    found = {}
    job = backend.create(SLEEP, size=len(IMAGE))
    found["created"] = (backend.spool / job).read_bytes()
    with contextlib.suppress(BackendError), backend.sending(job, len(IMAGE), b"im"):
        backend.wait_for(job, "receiving")
        found["receiving"] = (backend.spool / job).read_bytes()
    running = [backend.submit(SLEEP, IMAGE) for _ in range(2)]  # as many as one user may have
    scheduled = backend.submit(SLEEP, IMAGE)
    for other in running:
        backend.wait_for(other, "uploading")
    found["uploading"] = (backend.spool / running[0]).read_bytes()
    found["scheduled"] = (backend.spool / scheduled).read_bytes()
    for other in (scheduled, *running):
        backend.kill(other)
    found["killed"] = backend.archived(running[0])
    found["killed-before-upload"] = backend.archived(scheduled)
    found["failed-unexpected-eof"] = _archived(backend, job)
    return found


def _failed_reception(backend: Backend) -> dict[str, bytes]:
    found = {}
    job = backend.create(b"", size=len(IMAGE) + 1)
    with contextlib.suppress(BackendError):
        backend.put(job, IMAGE)
    found["failed-size-mismatch"] = _archived(backend, job)
    job = backend.create_raw(
        b"<clouduploadjob user='' target='' project='' repository='' package='' arch='' filename='' size='abc'/>"
    )
    found["created-with-empty-fields"] = (backend.spool / job).read_bytes()
    backend.kill(job)
    return found


def _with_progress_and_try(backend: Backend) -> bytes:
    # OBS knows both elements, keeps them, and never sets them: so they are put in by hand.
    job = backend.create(b"", size=len(IMAGE))
    path = backend.spool / job
    content = path.read_bytes().replace(b">created<", b">waiting<")
    content = re.sub(rb"<details>.*</details>", rb"<try>2</try>\n  <progress>40</progress>", content)
    (backend.spool / f"{job}.file").write_bytes(IMAGE)
    beside = backend.spool / ".by-hand"
    beside.write_bytes(content)
    beside.replace(path)
    backend.wake_worker()
    return _archived(backend, job)


def main() -> None:
    """Write tests/data/jobs anew."""
    with tempfile.TemporaryDirectory() as work_dir:
        bin_dir = Path(work_dir, "bin")
        write_script_uploader(bin_dir)
        backend = Backend(Path(work_dir, "obs"), path_dirs=[bin_dir], environment={})
        with contextlib.closing(backend):
            backend.start()
            for name, content in capture(backend).items():
                (DATA_DIR / name).write_bytes(content)


if __name__ == "__main__":
    main()
