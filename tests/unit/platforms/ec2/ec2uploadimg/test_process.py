import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from clouduploader.errors import MissingProgramError
from clouduploader.platforms.ec2.ec2uploadimg import command, process
from clouduploader.util.cancel import Cancel

SECRETS = ["--secret-key=SECRET/of+role", "--session-token=TOKEN/of+role"]
FOREVER = 600.0
TAGS = {"clouduploader:key": "0123456789abcdef0123456789abcdef", "clouduploader:job": "42"}


@pytest.fixture
def start(tmp_path):
    """A factory of a running child; its script is this code, with `say` to write a line to stderr."""
    started = []
    head = "import os, signal, sys, time\ndef say(text): os.write(2, f'{text}\\n'.encode())\n"

    def make(code, *arguments, base=os.environ):
        script = tmp_path / "ec2uploadimg"
        script.write_text(head + textwrap.dedent(code))
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        running = process.HelperProcess(
            command.HelperProgram(script, sys.executable),
            arguments,
            tags=TAGS,
            environment=process.environment(base, home),
            directory=tmp_path,
            may_outlive_us=True,
        )
        started.append(running)
        return running

    yield make
    for running in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


class Watch:
    """What a watched child said and did."""

    def __init__(self, running, *, cancel=None, deadline=None, grace_seconds=FOREVER, on_line=None):
        self.lines = []
        self.calls = []
        self.ticks = 0
        self.cancel = cancel or Cancel()
        self.on_line = on_line
        self.ending = running.watch(
            on_line=self._take,
            on_call=self.calls.append,
            on_tick=self._tick,
            cancel=self.cancel,
            deadline=deadline,
            grace_seconds=grace_seconds,
        )

    def _take(self, line):
        self.lines.append(line)
        if self.on_line:
            self.on_line(self, line)

    def _tick(self):
        self.ticks += 1


def request_stop_at(word):
    def take(watch, line):
        if line == word:
            watch.cancel.request(signal.SIGTERM)

    return take


def test_lines_and_exit_status_arrive(start):
    watch = Watch(start("say('one'); say(''); say('größe'); sys.exit(3)"))
    assert watch.lines == ["one", "", "größe"]
    assert watch.ending == process.HelperExit(3, ("one", "", "größe"), False)
    assert watch.ticks > 0


def test_script_runs_as_main_with_its_arguments_and_an_empty_stdin(start, tmp_path):
    code = """
        import __main__, json
        say(json.dumps([sys.argv, __name__, sys.stdin.read(), os.getcwd(), os.environ["HOME"], sys.path[0]]))
    """
    words = ["--name=a 'b' \udcff\n", "--x=ö", "/spool/a.raw.xz"]
    watch = Watch(start(code, *words))
    assert json.loads("\n".join(watch.lines)) == [
        [str(tmp_path / "ec2uploadimg"), *words], "__main__", "", str(tmp_path), str(tmp_path / "home"), str(tmp_path),
    ]  # fmt: skip


def test_arguments_are_in_no_command_line_and_no_environment(start):
    running = start("say('ready'); time.sleep(600)", *SECRETS)
    seen = []

    def look(watch, _line):
        for name in ("cmdline", "environ"):
            seen.append(Path(f"/proc/{running.pid}/{name}").read_bytes())
        watch.cancel.request(signal.SIGTERM)

    Watch(running, on_line=look)
    assert b"wrapper.py" in seen[0]
    assert b"HOME=" in seen[1]
    for data in seen:
        assert b"of+role" not in data


def test_environment_has_what_is_needed_and_no_secret():
    base = {
        "PATH": "/bin",
        "HOME": "/root",
        "AWS_ACCESS_KEY_ID": "A",
        "AWS_SECRET_ACCESS_KEY": "S",
        "AWS_SESSION_TOKEN": "T",
        "AWS_PROFILE": "p",
        "AWS_SHARED_CREDENTIALS_FILE": "/x",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/x",
        "SSH_AUTH_SOCK": "/agent",
        "GNUPGHOME": "/x",
        "PYTHONPATH": "/x",
        "AWS_ENDPOINT_URL": "http://a",
        "AWS_ENDPOINT_URL_EC2": "http://b",
        "https_proxy": "http://p",
        "NO_PROXY": "x",
        "AWS_CA_BUNDLE": "/ca",
    }
    found = process.environment(base, Path("/private"))
    assert (
        found.items()
        <= {
            "PATH": "/bin",
            "HOME": "/private",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": "http://a",
            "AWS_ENDPOINT_URL_EC2": "http://b",
            "https_proxy": "http://p",
            "NO_PROXY": "x",
            "AWS_CA_BUNDLE": "/ca",
        }.items()
    )
    assert {"PATH", "HOME", "PYTHONUNBUFFERED", "AWS_ENDPOINT_URL", "https_proxy", "AWS_CA_BUNDLE"} <= found.keys()
    assert process.environment({}, Path("/private"))["PATH"] == os.defpath


def test_calls_of_the_api_are_traced_without_key_material(start, make_endpoint):
    answer = """<CreateKeyPairResponse><requestId>id-9</requestId><keyName>k</keyName>
        <keyMaterial>PRIVATE</keyMaterial></CreateKeyPairResponse>"""
    refusal = """<Response><Errors><Error><Code>VpcLimitExceeded</Code><Message>Too many.</Message></Error></Errors>
        <RequestID>id-10</RequestID></Response>"""
    endpoint = make_endpoint((200, answer), (400, refusal))
    code = """
        import boto3, botocore
        keys = {"aws_access_key_id": "A", "aws_secret_access_key": "SECRET/of+role"}
        ec2 = boto3.client("ec2", region_name="eu-west-1", **keys)
        say(ec2.create_key_pair(KeyName="k")["KeyMaterial"])
        try:
            ec2.create_vpc(CidrBlock="10.0.0.0/8")
        except botocore.exceptions.ClientError as exc:
            say(exc.response["Error"]["Code"])
    """
    watch = Watch(start(code, base=os.environ | {"AWS_ENDPOINT_URL": endpoint.url}))
    assert watch.lines == ["PRIVATE", "VpcLimitExceeded"]
    asked, made, asked_too, refused = map(json.loads, watch.calls)
    assert (asked, asked_too) == ({"asked": "CreateKeyPair"}, {"asked": "CreateVpc"})
    assert (made["operation"], made["status"], made["code"]) == ("CreateKeyPair", 200, None)
    assert (made["answer"], made["request_id"]) == ({"KeyName": "k"}, "id-9")
    assert made["parameters"]["KeyName"] == "k"
    assert (refused["operation"], refused["status"], refused["code"]) == ("CreateVpc", 400, "VpcLimitExceeded")
    assert (refused["message"], refused["request_id"]) == ("Too many.", "id-10")
    assert refused["date"].endswith("GMT")
    assert isinstance(refused["milliseconds"], int)
    assert b"PRIVATE" not in b"".join(watch.calls)
    assert b"SECRET" not in b"".join(watch.calls)


KEY_PAIR = "<CreateKeyPairResponse><requestId>id-9</requestId><keyName>k</keyName></CreateKeyPairResponse>"
REFUSAL = """<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>No.</Message></Error></Errors>
    <RequestID>id-10</RequestID></Response>"""
CLIENT = """
    import boto3, botocore
    ec2 = boto3.client("ec2", region_name="eu-west-1", aws_access_key_id="A", aws_secret_access_key="x")
"""


def tags_of(request):
    form = request.form
    names = [key for key in form if key.endswith(".Key")]
    return {form[name]: form[name.removesuffix("Key") + "Value"] for name in names}


def test_all_that_is_made_bears_the_tags_beside_those_of_the_script(start, make_endpoint):
    endpoint = make_endpoint((200, KEY_PAIR))
    code = f"""{CLIENT}
    name = {{"ResourceType": "key-pair", "Tags": [{{"Key": "Name", "Value": "helper"}}]}}
    ec2.create_key_pair(KeyName="k", TagSpecifications=[name])
    ec2.describe_key_pairs()
    """
    watch = Watch(start(code, base=os.environ | {"AWS_ENDPOINT_URL": endpoint.url}))
    assert watch.ending.exit_status == 0, watch.lines
    assert tags_of(endpoint.requests[0]) == TAGS | {"Name": "helper"}
    assert [value for key, value in endpoint.requests[0].form.items() if "ResourceType" in key] == ["key-pair"]
    assert tags_of(endpoint.requests[1]) == {}
    assert [json.loads(line).get("asked") for line in watch.calls] == ["CreateKeyPair", None, None]


def test_role_that_may_not_tag_can_still_make_things(start, make_endpoint):
    endpoint = make_endpoint((403, REFUSAL), (200, KEY_PAIR))
    code = f"""{CLIENT}
    say(ec2.create_key_pair(KeyName="k")["KeyName"])
    """
    watch = Watch(start(code, base=os.environ | {"AWS_ENDPOINT_URL": endpoint.url}))
    assert watch.lines == ["k"]
    assert [tags_of(request) for request in endpoint.requests] == [TAGS, {}]
    lines = [json.loads(line) for line in watch.calls]
    assert [(line.get("asked"), line.get("code")) for line in lines] == [
        ("CreateKeyPair", None), (None, "UnauthorizedOperation"), ("CreateKeyPair", None), (None, None),
    ]  # fmt: skip


def test_refusal_for_another_reason_is_the_scripts_own(start, make_endpoint):
    endpoint = make_endpoint((400, REFUSAL.replace("UnauthorizedOperation", "VpcLimitExceeded")))
    code = f"""{CLIENT}
    try:
        ec2.create_vpc(CidrBlock="10.0.0.0/8")
    except botocore.exceptions.ClientError as exc:
        say(exc.response["Error"]["Code"])
    """
    watch = Watch(start(code, base=os.environ | {"AWS_ENDPOINT_URL": endpoint.url}))
    assert watch.lines == ["VpcLimitExceeded"]
    assert len(endpoint.requests) == 1


def test_last_line_without_an_end_arrives(start):
    watch = Watch(start("os.write(2, b'one\\ntwo')"))
    assert watch.lines == ["one", "two"]


def test_bytes_that_are_no_text_arrive_as_marks(start):
    assert Watch(start("os.write(2, b'a\\xff\\n')")).lines == ["a\ufffd"]


def test_huge_line_arrives_whole(start):
    watch = Watch(start("sys.stderr.write('x' * (3 << 20) + '\\nend\\n')"))
    assert [len(line) for line in watch.lines] == [3 << 20, 3]


def test_only_the_last_lines_are_kept(start):
    watch = Watch(start("for n in range(1000): say(n)"))
    assert len(watch.lines) == 1000
    assert watch.ending.lines == tuple(map(str, range(1000 - process.KEPT_LINES, 1000)))


def test_stdout_is_not_listened_to(start):
    assert Watch(start("print('.' * 200_000); say('done')")).lines == ["done"]


def test_traceback_of_the_script_arrives(start):
    watch = Watch(start("raise KeyError('x')"))
    assert watch.ending.exit_status == 1
    assert watch.lines[-1] == "KeyError: 'x'"


COUNTING = """
    def count(number, _frame):
        say('signal')
        time.sleep(0.3)
        say('cleaned')
        sys.exit(9)
    signal.signal(signal.SIGTERM, count)
    say('ready')
    time.sleep(600)
"""


def test_stop_sends_one_sigterm_and_waits_for_the_clean_up(start):
    watch = Watch(start(COUNTING), on_line=request_stop_at("ready"))
    assert watch.lines == ["ready", "signal", "cleaned"]
    assert watch.ending == process.HelperExit(9, ("ready", "signal", "cleaned"), False)


def test_stop_that_came_before_is_seen(start):
    cancel = Cancel()
    cancel.request(signal.SIGTERM)
    watch = Watch(start("say('ready'); time.sleep(600)"), cancel=cancel)
    assert watch.ending.exit_status == -signal.SIGTERM


def test_deadline_is_a_stop_that_is_told_as_late(start):
    watch = Watch(start(COUNTING), deadline=time.monotonic() + 1)
    assert watch.ending.is_late
    assert watch.ending.exit_status in (9, -signal.SIGTERM)  # the latter if it was not ready in that time


def test_child_that_ignores_sigterm_is_killed_after_the_grace(start):
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('ready'); time.sleep(600)"
    watch = Watch(start(code), on_line=request_stop_at("ready"), grace_seconds=0)
    assert watch.ending.exit_status == -signal.SIGKILL


def test_grandchild_that_keeps_the_pipes_is_killed_too(start):
    code = """
        if not os.fork():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say(os.getpid())
            time.sleep(600)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        time.sleep(600)
    """
    watch = Watch(start(code), on_line=lambda watch, _line: watch.cancel.request(15), grace_seconds=0)
    (pid,) = watch.lines
    with pytest.raises(ProcessLookupError):
        wait_for_end(int(pid))


CLOSED = "os.closerange(2, 100); time.sleep(600)"


def test_child_that_closed_its_pipes_still_hears_of_a_stop(start):
    cancel = Cancel()
    cancel.request(signal.SIGTERM)
    running = start(f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {CLOSED}")
    assert Watch(running, cancel=cancel, grace_seconds=1).ending.exit_status in (-signal.SIGKILL, -signal.SIGTERM)


def test_child_that_closed_its_pipes_still_has_a_deadline(start):
    running = start(f"say('ready'); {CLOSED}")
    watch = Watch(running, deadline=time.monotonic() + 2)
    assert watch.ending == process.HelperExit(-signal.SIGTERM, ("ready",), True)


def test_child_is_stopped_when_what_it_says_cannot_be_taken(start):
    running = start("say('ready'); time.sleep(600)")

    def fail(_watch, _line):
        raise KeyError("unexpected")

    with pytest.raises(KeyError):
        Watch(running, on_line=fail)
    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)


def test_child_is_in_a_session_of_its_own(start):
    watch = Watch(start("say(os.getsid(0) == os.getpid())"))
    assert watch.lines == ["True"]


def test_position_is_how_far_a_file_was_read(start, tmp_path):
    image = tmp_path / "42.file"
    image.write_bytes(bytes(10_000))
    link = tmp_path / "a.raw"
    link.symlink_to(image)
    running = start(f"file = open({str(link)!r}, 'rb', 0); file.read(4321); say('ready'); time.sleep(600)")
    seen = []

    def look(watch, _line):
        seen.append(running.position(link))
        seen.append(running.position(tmp_path / "none"))
        seen.append(running.position(Path(__file__)))
        watch.cancel.request(signal.SIGTERM)

    Watch(running, on_line=look)
    assert seen == [4321, None, None]
    assert running.position(link) is None


def test_interpreter_that_cannot_be_started_is_an_error(tmp_path):
    broken = tmp_path / "python3"
    broken.write_bytes(b"\0")
    broken.chmod(0o755)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(MissingProgramError, match=f"{broken} can't be started: Exec format error"):
        process.HelperProcess(
            command.HelperProgram(tmp_path / "x", str(broken)),
            [],
            tags={},
            environment={},
            directory=tmp_path,
            may_outlive_us=True,
        )
    assert len(list(Path("/proc/self/fd").iterdir())) == before


PARENT = """
import os, sys, time
from pathlib import Path
from clouduploader.platforms.ec2.ec2uploadimg import command, process
script, directory = Path(sys.argv[1]), Path(sys.argv[2])
program = command.HelperProgram(script, sys.executable)
environment, may_outlive_us = dict(os.environ), sys.argv[3] == "True"
running = process.HelperProcess(
    program, [], tags={}, environment=environment, directory=directory, may_outlive_us=may_outlive_us
)
print(running.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("may_outlive_us", [True, False])
def test_child_of_a_parent_that_is_killed_cleans_up_if_it_may(tmp_path, may_outlive_us):
    script = tmp_path / "ec2uploadimg"
    script.write_text(
        "import signal, sys, time\nfrom pathlib import Path\n"
        "def clean(*_):\n    Path('cleaned').touch()\n    sys.exit()\n"
        "signal.signal(signal.SIGTERM, clean)\nPath('ready').touch()\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, script, tmp_path, str(may_outlive_us)], stdout=subprocess.PIPE
    )
    pid = int(parent.stdout.readline())
    try:
        wait_for(tmp_path / "ready")
        parent.kill()
        if may_outlive_us:
            wait_for(tmp_path / "cleaned")
        else:
            with pytest.raises(ProcessLookupError):
                wait_for_end(pid)
            assert not (tmp_path / "cleaned").exists()
    finally:
        parent.kill()
        parent.communicate()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for_end(pid):
    for _ in range(3000):
        os.kill(pid, 0)
        time.sleep(0.02)


def wait_for(path):
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.02)
    pytest.fail(f"{path.name} did not come")
