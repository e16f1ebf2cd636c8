"""RabbitMQ of Debian, as a plain process on loopback, beside one that the machine may run as a service.

Its ports, its node's name, its directories, its cookie and its epmd are its own, so many can run at once; what the
Debian package has in /etc is not read.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one on PATH becomes the user rabbitmq
USER, PASSWORD = "uploads", "made-up-pass/word of the tests"
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")  # also if the test run is killed
PATIENCE_SECONDS = 60  # only a failing test waits that long
SETTINGS = f"""
default_user = {USER}
default_pass = {PASSWORD}
log.console = false
disk_free_limit.absolute = 1MB
"""

READER = """
import json, sys
import amqp
port, user, queue = sys.argv[1:]
with amqp.Connection(f"127.0.0.1:{port}", userid=user, password=sys.stdin.read()) as connection:
    channel, found = connection.channel(), []
    while (message := channel.basic_get(queue)) is not None:
        found.append((message.properties, message.body))
    print(json.dumps(found, default=str))
"""


class RabbitMq:
    """A broker that can be ended in all ways, and started again with what it had.

    Args:
        place: An empty directory for its files.
        enter: What to put before the command lines of its processes, which may be in a network of their own.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        url: For clients, without the password.
        password: Of the user in `url`.
    """

    def __init__(self, place, enter=()):
        self.port, self._epmd_port, distribution_port = free_ports(3)
        self.url, self.password = f"amqp://{USER}@127.0.0.1:{self.port}//", PASSWORD
        self._node = f"rabbit{self.port}@localhost"
        self._enter = enter
        self._log = place / "rabbitmq.log"
        settings = place / "rabbitmq.conf"
        settings.write_text(SETTINGS)
        (place / "enabled_plugins").write_text("[].\n")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ", "ERL"))}
        self._environment = inherited | {
            "HOME": str(place),  # of the cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_CONFIG_FILE": str(settings),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "enabled_plugins"),
            "RABBITMQ_LOG_BASE": str(place / "log"),
            "RABBITMQ_MNESIA_BASE": str(place / "data"),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +S 2:2"
            ),
            "RUNNING_UNDER_SYSTEMD": "true",  # lets the script become the server, and not its parent
        }
        self._epmd = self._process = None

    # --- its life

    def start(self):
        """Start it, and wait until it takes connections."""
        if self._epmd is None:
            self._epmd = self._popen("epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1")
            self._wait_for(self._epmd, "epmd", "-port", str(self._epmd_port), "-names")
        self._process = self._popen(SCRIPT)
        self._wait_for(self._process, "erl_call", "-sname", self._node, "-a", "rabbit await_startup")

    def stop(self):
        """End it as a restart of its service would."""
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)

    def kill(self):
        """End it by SIGKILL."""
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)

    def restart(self):
        """Stop and start it."""
        self.stop()
        self.start()

    def freeze(self):
        """Let it say nothing, with all connections open, until `thaw`."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        """Let it go on after `freeze`."""
        self._process.send_signal(signal.SIGCONT)

    def close(self):
        """End all that was started."""
        for process in (self._process, self._epmd):
            if process is not None:
                process.kill()
                process.wait(PATIENCE_SECONDS)

    # --- what is in it

    def close_all_connections(self):
        """Close the connections of all clients, as an operator can."""
        self.evaluate(
            '[rabbit_networking:close_connection(It, <<"closed by a test">>)'
            " || It <- rabbit_networking:connections_local()]"
        )

    def set_consumer_timeout(self, seconds):
        """Take messages back that are unacknowledged for so long, on channels that are opened from now on.

        It is looked for each second, not each minute.
        """
        self.evaluate(
            f"application:set_env(rabbit, consumer_timeout, {int(seconds * 1000)}),"
            "application:set_env(rabbit, channel_tick_interval, 1000)"
        )

    def evaluate(self, expression):
        """Evaluate an expression of Erlang in it; return the answer as text."""
        done = self._run("erl_call", "-sname", self._node, "-e", given=f"{expression}.\n")
        assert done.stdout.startswith("{ok, "), (done.stdout, done.stderr)
        return done.stdout.removeprefix("{ok, ").removesuffix("}")

    def messages(self, queue):
        """Return the properties, headers included, and the bodies of what waits in a queue, and stays in it."""
        done = self._run(sys.executable, "-c", READER, str(self.port), USER, queue, given=self.password)
        assert done.returncode == 0, done.stderr
        return [(properties, json.loads(body)) for properties, body in json.loads(done.stdout)]

    def depth(self, queue):
        """Return how many messages wait in a queue for a host."""
        return len(self.messages(queue))

    def _run(self, *command, given=""):
        return subprocess.run(
            [*self._enter, *command],
            input=given, env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def _popen(self, *command):
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*self._enter, *DIES_WITH_US, *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment, start_new_session=True,
            )  # fmt: skip

    def _wait_for(self, process, *command):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._run(*command).returncode != 0:
            assert process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)


def free_ports(count):
    """Return so many ports of 127.0.0.1 that are free, and that no client gets for its end while a server is down."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = []
    while len(found) < count:
        port = secrets.randbelow(first // 2) + first // 2
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    return found


@contextlib.contextmanager
def running(enter=()):
    """Give a broker that runs inside the block; see `RabbitMq`."""
    place = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
    broker = RabbitMq(place, enter)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()
        shutil.rmtree(place)
