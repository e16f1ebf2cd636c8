"""The command `clouduploader sandbox` itself: its life, its end, and its walls."""

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.sandbox

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
REPOSITORY = Path(__file__).parents[2]
NOBODY = "65534"


@pytest.fixture
def start(tmp_path):
    """A factory of sandboxes that run a shell script; all are killed when the test ends."""
    running = []

    def run(script, *options, **kwargs):
        directory = tmp_path / "temporary"
        directory.mkdir(exist_ok=True)
        kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | kwargs
        process = subprocess.Popen(
            [EXECUTABLE, "sandbox", *options, "--", "sh", "-c", script],
            env={**os.environ, "TMPDIR": str(directory)},
            **kwargs,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        with process:
            process.kill()


@pytest.fixture
def run(start, tmp_path):
    """The same to the end; gives status, output, errors. Nothing of it may be left."""

    def to_the_end(script, *options):
        process = start(script, *options)
        output, errors = process.communicate()
        assert_nothing_left(tmp_path)
        return process.returncode, output, errors

    return to_the_end


def assert_nothing_left(tmp_path):
    assert list((tmp_path / "temporary").iterdir()) == []
    assert processes_with(str(tmp_path)) == []


def processes_with(text):
    """The command lines of processes that have this in their environment; this one aside."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (directory / "environ").read_bytes() and directory.name != str(os.getpid()):
                found.append((directory / "cmdline").read_bytes())
        except OSError:
            continue
    return found


def test_sandbox_gives_the_status_of_its_command(run):
    assert run("exit 7")[0] == 7


def test_sandbox_says_that_waiting_is_shortened(run):
    assert "multiplied by 0.02" in run("true")[2]
    assert "are as always" in run("true", "--wait-factor=1")[2]


def test_command_that_a_signal_ends_gives_128_and_its_number(run):
    assert run("kill -KILL $$")[0] == 128 + signal.SIGKILL


def test_command_that_does_not_exist_gives_127(tmp_path):
    done = subprocess.run([EXECUTABLE, "sandbox", "--", "no-such-thing"], capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "no-such-thing: No such file or directory" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_goes_to_the_command_and_then_all_ends(start, tmp_path, number):
    script = f"trap 'echo caught; exit 42' {number.name.removeprefix('SIG')}; echo up; while :; do sleep 0.1; done"
    process = start(f"sleep 1000 & {script}")
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert process.stdout.readline() == "caught\n"
    assert process.wait() == 42
    assert_nothing_left(tmp_path)


def test_signal_while_it_starts_ends_it(start, tmp_path):
    process = start("echo never")
    while not list((tmp_path / "temporary").iterdir()):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate()
    assert (process.returncode, output) == (143, "")
    assert errors == "clouduploader: stopped by SIGTERM.\n"
    assert_nothing_left(tmp_path)


def test_killed_sandbox_takes_all_with_it(start, tmp_path):
    process = start("echo up; sleep 1000")
    assert process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while processes_with(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_with(str(tmp_path)) == []


def test_terminal_sends_one_interrupt_and_not_two(start, tmp_path):
    count = tmp_path / "count.py"
    count.write_text(
        "import signal, time\n"
        "seen = []\n"
        "signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
        "print('up', flush=True)\n"
        "while not seen: time.sleep(0.01)\n"
        "time.sleep(0.5)\n"
        "print(len(seen), 'interrupts', flush=True)\n"
    )
    master, slave = pty.openpty()
    process = start(f"exec {sys.executable} {count}", stdin=slave, stdout=slave, stderr=slave, preexec_fn=_own_terminal)
    os.close(slave)
    text = _read_until(master, b"up\r\n")
    os.write(master, b"\x03")
    text += _read_until(master, b" interrupts")
    assert process.wait() == 0
    os.close(master)
    assert b"1 interrupts" in text


SERVICE = """
clouduploader kill --yes 1 >/dev/null
clouduploader serve 2>log & server=$!
image=$(dirname "$CLOUDUPLOADER_SPOOL")/sample.raw.xz
clouduploader upload --method ebs-direct --name by-hand "$image"
until grep -q event=serving log; do sleep 0.1; done
clouduploader submit --server http://127.0.0.1:5452 --wait --method ebs-direct --name by-server "$image"
kill $server; wait $server
clouduploader worker 2>log & worker=$!
clouduploader submit --wait --method ebs-direct --name by-worker "$image"
kill $worker; wait $worker
"""


def test_upload_submit_serve_and_worker_need_no_settings(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, output, errors = run(SERVICE, "--quiet")
    assert re.fullmatch(r"ami-\w+\n3\nami-\w+\n4\nami-\w+\n", output), errors
    assert status == 0


def test_shell_is_interactive_and_told_what_there_is(start, tmp_path):
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [EXECUTABLE, "sandbox"],
        env={**os.environ, "SHELL": "/bin/bash", "PS1": "ready$ ", "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=_own_terminal,
    )
    os.close(slave)
    introduction = _read_until(master, b"Leave it with")
    os.write(master, b"jobs -l; echo role=$(grep -c role_arn $CLOUDUPLOADER_SANDBOX/sandbox.json); exit 3\n")
    text = _read_until(master, b"role=1")
    assert process.wait() == 3
    os.close(master)
    assert b"arn:aws:iam::123456789012:role/obs-upload" in introduction
    assert re.findall(rb"^  clouduploader (\w+)", introduction, re.MULTILINE)[0] == b"upload"
    assert b"no job control" not in introduction + text
    assert list(tmp_path.glob("clouduploader-sandbox-*")) == []


def _own_terminal():
    os.setsid()
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read_until(descriptor, wanted):
    text = b""
    while wanted not in text:
        text += os.read(descriptor, 4096)
    return text


def test_kept_sandbox_stays_in_its_directory(run, tmp_path):
    kept = tmp_path / "kept"
    assert run('cat "$CLOUDUPLOADER_SANDBOX/sandbox.json"', f"--keep={kept}")[0] == 0
    assert json.loads((kept / "sandbox.json").read_text())["home"] == str(kept / "home")
    assert kept.stat().st_mode & 0o777 == 0o700
    status, _, errors = run("true", f"--keep={kept}")
    assert status == 73
    assert "File exists" in errors


def test_sandbox_prepares_home_and_a_job(sandbox):
    credentials = sandbox.home / ".aws" / "credentials"
    assert credentials.stat().st_mode & 0o777 == 0o600
    assert sandbox.description["obs"]["secret_access_key"] in credentials.read_text()
    assert "[region-us-east-1]" in (sandbox.home / ".ec2utils.conf").read_text()
    assert sorted(path.name for path in sandbox.spool.iterdir()) == ["1", "1.data", "1.file", "done", "next"]
    assert json.loads((sandbox.spool / "1.data").read_text()) == sandbox.targetdata(ami_name="clouduploader-sample")
    assert (sandbox.spool / "next").read_text() == '<clouduploadjob name="2" />\n'


def test_environment_is_free_of_other_accounts(run, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "strange")
    code = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"
    status, output, _ = run(f'env; {sys.executable} -c "{code}"')
    assert status == 0
    assert "strange" not in output
    assert ":user/auditor" in output


def test_nothing_outside_can_be_reached(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        code = (
            "import socket, sys\n"
            "for address in ('127.0.0.1', '192.0.2.1', '8.8.8.8', '169.254.169.254'):\n"
            "    try: socket.create_connection((address, int(sys.argv[1])), 5); print('open')\n"
            "    except ConnectionRefusedError: print('refused')\n"
        )
        done = sandbox.run([sys.executable, "-c", code, str(port)])
    assert done.stdout.split() == ["refused"] * 4
    links = sandbox.run(["ip", "-o", "link"]).stdout.splitlines()
    assert [re.match(r"\d+: (\w+)", link)[1] for link in links] == ["lo"]


def test_missing_programs_are_named_with_their_packages(tmp_path):
    done = subprocess.run(
        [EXECUTABLE, "sandbox", "--", "true"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 69
    assert "iproute2" in done.stderr
    assert "apt install" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_extra_is_named(tmp_path):
    code = (
        "import sys; sys.modules['moto'] = None\n"
        "from clouduploader.cli import main; sys.exit(main.main(['sandbox', '--', 'true']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 69
    assert "pip install 'clouduploader[sandbox]'" in done.stderr


def test_forbidden_namespaces_are_explained():
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", EXECUTABLE, "sandbox", "--", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 77
    assert "namespaces" in done.stderr
    assert "max_user_namespaces" in done.stderr


def test_unknown_region_is_a_usage_error():
    done = subprocess.run(
        [EXECUTABLE, "sandbox", "--region=mars-1", "--", "true"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert "mars-1" in done.stderr


# Makes the directories that only root can reach reachable, in a mount namespace of this process.
REACH = """
while [ "$1" != -- ]; do
    mount --bind "$2" /mnt && mount -t tmpfs -o mode=755 none "$1" && mkdir -p "$2" && mount --move /mnt "$2" || exit 99
    shift 2
done
shift
exec "$@"
"""


def as_plain_user(argv):
    """A command line that runs this one without any privilege."""
    if os.geteuid() != 0:
        return argv
    hidden = {}
    for needed in (Path(sys.base_prefix).resolve(), Path(sys.prefix), REPOSITORY):
        for parent in reversed(needed.parents):
            if not parent.stat().st_mode & 0o001:
                hidden[str(parent)] = str(needed)
                break
    pairs = [word for pair in hidden.items() for word in pair]
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--"]
    return ["unshare", "--mount", "sh", "-c", REACH, "sh", *pairs, "--", *drop, *argv]


def test_plain_user_uploads_without_any_privilege(tmp_path):
    directory = Path("/tmp") / f"plain-{os.getpid()}"  # noqa: S108  # tmp_path is root's alone
    directory.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(directory, int(NOBODY), int(NOBODY))
    script = (
        'clouduploader submit --method ebs-direct --name mine "$CLOUDUPLOADER_SANDBOX/sample.raw.xz"; '
        'cd "$CLOUDUPLOADER_SPOOL"; ln -s 1.file x.raw.xz; HOME=$CLOUDUPLOADER_HOME '
        f"{sys.executable} {Path(__file__).with_name('upload_like_obs.py')} x.raw.xz; "
        "for f in $CLOUDUPLOADER_SANDBOX/volumes/snap-*.raw; do head -c 16777216 $f | sha256sum; done; "
        'grep -o "[0-9a-f]\\{64\\}" $CLOUDUPLOADER_SANDBOX/sandbox.json'
    )
    try:
        done = subprocess.run(
            as_plain_user([EXECUTABLE, "sandbox", "--", "sh", "-c", script]),
            env={name: value for name, value in os.environ.items() if name not in ("LOGNAME", "USER")}
            | {"TMPDIR": str(directory), "HOME": str(directory)},
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert list(directory.iterdir()) == []
    finally:
        shutil.rmtree(directory)
    assert done.returncode == 0, done.stderr
    assert "Created image: ami-" in done.stderr
    submitted, *_, on_disk, expected = done.stdout.splitlines()
    assert submitted == "2"
    assert on_disk.split()[0] == expected
