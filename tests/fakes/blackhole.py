"""A network between a client and a server on this machine that can break: a process that passes TCP on, or doesn't.

    python blackhole.py ADDRESS:PORT ADDRESS:PORT      # where to listen, and where to connect to

Orders come on stdin, a line each, and are answered by a line: `pass`, `hole`, `cut`, `delay SECONDS`.
"""

import asyncio
import contextlib
import subprocess
import sys

PIECE_BYTES = 1 << 16


class Blackhole:
    """A network between a client and a server; passes on all at first.

    Args:
        listen: Where it listens, ADDRESS:PORT.
        target: Where it connects to, ADDRESS:PORT.
        enter: What to put before the command line of its process.
    """

    def __init__(self, listen, target, enter=()):
        self._process = subprocess.Popen(
            [*enter, sys.executable, __file__, listen, target],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self._await_answer()

    def heal(self):
        """Pass on all that comes, and what was held back."""
        self._order("pass")

    def swallow(self):
        """Pass on nothing more, and take connections all the same; what comes is held back, as TCP sends it again."""
        self._order("hole")

    def cut(self):
        """End all connections there are."""
        self._order("cut")

    def delay(self, seconds):
        """Hold back each piece for so long."""
        self._order(f"delay {seconds}")

    def close(self):
        """End it, with all connections."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _order(self, order):
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        self._await_answer()

    def _await_answer(self):
        assert self._process.stdout.readline() == "ok\n"


class _Network:
    def __init__(self, host, port):
        self._target = host, int(port)
        self._passes = asyncio.Event()
        self._passes.set()
        self._delay_seconds = 0.0
        self._transports = set()

    async def take(self, reader, writer):
        """Serve one client."""
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            self._hold(stack, writer)
            await self._passes.wait()
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._hold(stack, far_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far_writer))
                pumps.create_task(self._pump(far_reader, writer))

    def _hold(self, stack, writer):
        self._transports.add(writer.transport)
        stack.callback(self._transports.discard, writer.transport)
        stack.callback(writer.transport.abort)

    async def _pump(self, reader, writer):
        try:
            while piece := await reader.read(PIECE_BYTES):
                await asyncio.sleep(self._delay_seconds)
                await self._passes.wait()
                writer.write(piece)
                await writer.drain()
            await self._passes.wait()
            writer.write_eof()
        except OSError:
            writer.transport.abort()

    def obey(self, order):
        """Do what a line says."""
        what, _, value = order.partition(" ")
        if what == "pass":
            self._passes.set()
        elif what == "hole":
            self._passes.clear()
        elif what == "delay":
            self._delay_seconds = float(value)
        else:
            for transport in self._transports:
                transport.abort()


def _answer():
    sys.stdout.write("ok\n")
    sys.stdout.flush()


async def _serve(listen, target):
    network = _Network(*target.rsplit(":", 1))
    host, port = listen.rsplit(":", 1)
    loop = asyncio.get_running_loop()
    async with await asyncio.start_server(network.take, host, int(port)):
        _answer()
        while order := await loop.run_in_executor(None, sys.stdin.readline):
            network.obey(order.strip())
            _answer()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
