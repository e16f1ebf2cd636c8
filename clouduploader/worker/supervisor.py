"""The process beside one upload: executes the uploader, waits for its end, and records it. Run as a script.

    python -I -S supervisor.py SPOOL JOB TRIES PAUSE_SECONDS PROGRAM USER TARGET UPLOAD_FILE ...

Like the helper of OBS's worker it leads session and process group, and its pid is the job's. If the worker dies, or is
restarted, the upload goes on, and its end is recorded all the same.

Standard input is a pipe from the worker. A byte in it says that the record with this pid is on the disk; its end
without one, that the worker has ended, or could not write the record: then nothing is executed. Standard output and
error are the job's log. A SIGTERM, which is for the whole group, ends the uploader; the supervisor stays to record
that.

It imports little at first, so that the uploader is executed soon, and what the end needs while the upload runs: thus a
new version of clouduploader may be installed meanwhile.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RETRY_SECONDS = 2.0  # ours: until the next try to record the end on a full disk

_noted: list[int] = []


def main() -> None:
    """See the module."""
    directory, name, tries, pause_seconds, program, *words = sys.argv[1:]
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in STOPPING:
        signal.signal(number, lambda received, _frame: _noted.append(received))
    os.chdir("/")
    child = _execute(directory, name, program, words) if os.read(0, 1) else None
    if child is None:
        return
    end = _load_end(directory, name, int(tries), int(pause_seconds))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    end(code)
    # Nothing is left to be tidied up, and the next job waits for our end. With the code of the uploader, or as a
    # shell says it that a signal ended it: what the record does not tell, the worker counts.
    os._exit(code if code >= 0 else 128 - code)


def _execute(directory: str, name: str, program: str, words: list[str]) -> int | None:
    """Start the uploader in its fresh directory.

    Returns:
        Its pid; None if the job was killed before.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # a kill either comes before the fork, or reaches the child
    if _noted or signal.sigpending().intersection(STOPPING):
        return None
    prepared_dir, work_dir = os.path.join(directory, f".{name}.dir"), os.path.join(directory, f"{name}.dir")
    try:
        os.rename(prepared_dir, work_dir)
    except FileNotFoundError:
        return None  # archived
    try:
        _sync(directory)  # from here on the next worker must take the upload for begun
        child = os.fork()
    except OSError:
        os.rename(work_dir, prepared_dir)  # nothing has begun: there are too many processes, or worse
        raise
    if child == 0:
        _become(work_dir, program, words)
    if signal.sigpending().intersection(STOPPING):  # before the fork or after; a second one does no harm
        os.kill(child, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return child


def _become(work_dir: str, program: str, words: list[str]) -> None:
    """In the child: execute the uploader as OBS's worker does. SIGPIPE stays ignored, as it is there."""
    try:
        os.chdir(work_dir)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        for number in (*STOPPING, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(program, [os.path.basename(program), *words], _environment())  # noqa: S606 there is no shell
    except OSError as exc:
        os.write(2, os.fsencode(f"{program}: {exc.strerror}\n"))
        os._exit(exc.errno or 1)  # Perl's die does the same: "exit status 2" is a program that is not there


def _environment() -> dict[bytes, bytes]:
    """Return the environment as the worker gave it: Python adds LC_CTYPE where no locale is set (PEP 538)."""
    with open("/proc/self/environ", "rb") as file:
        pairs = (item.partition(b"=") for item in file.read().split(b"\0") if item)
        return {key: value for key, _, value in pairs}


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def _load_end(directory: str, name: str, tries: int, pause_seconds: int) -> Callable[[int], None]:
    """Import all that the end needs.

    Returns:
        A function that records the end, to be called with the uploader's exit code.
    """
    sys.path.append(os.path.abspath(f"{__file__}/../../.."))
    import shutil  # noqa: F401 for `spool`, which loads it when it removes the directory
    from pathlib import Path

    from clouduploader import errors
    from clouduploader.store import spool
    from clouduploader.store.config import STATE_NAME
    from clouduploader.util import files, privileges
    from clouduploader.worker import outcome

    jobs = spool.Spool(Path(directory))
    state_dir = Path(os.environ.get("CLOUDUPLOADER_STATE") or jobs.directory / STATE_NAME)  # as the uploader has it
    retries = outcome.RetryLimits(tries, pause_seconds)

    def end(code: int) -> None:
        while True:
            try:
                outcome.record_exit(jobs, name, pid=os.getpid(), code=code, retries=retries, state_dir=state_dir)
                if not jobs.job_path(name).exists():  # archived, perhaps by a kill while the uploader still wrote
                    with privileges.as_owner(jobs.directory):
                        files.remove_tree(jobs.work_dir(name))
                        jobs.result_path(name).unlink(missing_ok=True)
                break
            except errors.JobFileError:
                break  # the record is damaged; the worker logs it
            except (errors.ClouduploaderError, OSError):
                time.sleep(RETRY_SECONDS)
        jobs.ping_worker()

    return end


if __name__ == "__main__":
    main()
