"""What a large body costs aiohttp, aiohttp whose socket is read past it, and ASGI servers.

.venv/bin/pip install uvicorn httptools hypercorn
.venv/bin/python bench/frameworks.py [--mib 512] [--rounds 3]
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
BUFFER_BYTES = 1 << 20  # as the server's own
BIN_DIR = Path(sys.executable).parent


async def application(scope, receive, send):
    """The ASGI application: write the body to a file."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    with Path(os.environ["OUT"]).open("wb", buffering=0) as file:
        message = await receive()
        while message["type"] == "http.request":
            file.write(message["body"])
            if not message.get("more_body"):
                break
            message = await receive()
    headers = [(b"content-length", b"4"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"done"})


def serve_aiohttp(port, *, is_raw):
    from aiohttp import web

    async def put(request):
        with Path(os.environ["OUT"]).open("wb", buffering=0) as file:
            if is_raw:
                await read_socket(request, file)
            else:
                async for piece in request.content.iter_any():
                    file.write(piece)
        answer = web.Response(text="done")
        answer.force_close()
        return answer

    app = web.Application(client_max_size=1 << 50)
    app.router.add_put("/", put)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


async def read_socket(request, file):
    """As server/receive/image_body.py does it, but for its threads."""
    left = request.content_length
    while True:
        piece = request.content.read_nowait()
        request.transport.pause_reading()
        if not piece:
            break
        left -= file.write(piece)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with request.transport.get_extra_info("socket").dup() as sock:
        while left:
            count = await asyncio.get_running_loop().sock_recv_into(sock, buffer)
            left -= file.write(buffer[:count])
    request.content.feed_eof()


def commands(port):
    this = Path(__file__)
    yield "aiohttp", [sys.executable, this, "--serve", "aiohttp", str(port)]
    yield "aiohttp, socket read past it", [sys.executable, this, "--serve", "raw", str(port)]
    at = ["--port", str(port), "--log-level", "error"]
    yield "uvicorn, httptools", [BIN_DIR / "uvicorn", "frameworks:application", *at, "--http", "httptools"]
    yield (
        "hypercorn",
        [BIN_DIR / "hypercorn", "frameworks:application", "--bind", f"127.0.0.1:{port}", "--workers", "0"],
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def connect(port):
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.1)
    sys.exit("the server did not start")


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def put(pid, port, mib):
    """Return CPU and wall seconds for a GiB."""
    block = memoryview(bytes(1 << 20))
    with connect(port) as client:
        before, began = cpu_seconds(pid), time.monotonic()
        client.sendall(f"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {mib << 20}\r\n\r\n".encode())
        for _ in range(mib):
            client.sendall(block)
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
        if not answer.endswith(b"done"):
            sys.exit(f"the server answered {answer!r}")
        wall = time.monotonic() - began
    return (cpu_seconds(pid) - before) * 1024 / mib, wall * 1024 / mib


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_aiohttp(int(options.serve[1]), is_raw=options.serve[0] == "raw")
        return
    print(f"load {os.getloadavg()[0]:.1f}, {options.rounds} rounds of {options.mib} MiB, medians")
    print(f"{'':30}{'CPU s/GiB':>12}{'wall s/GiB':>12}")
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "OUT": f"{directory}/image", "PYTHONPATH": str(Path(__file__).parent)}
        port = free_port()
        for name, command in commands(port):
            with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as child:
                connect(port).close()
                runs = [put(child.pid, port, options.mib) for _ in range(options.rounds)]
                child.terminate()
            cpu, wall = (statistics.median(numbers) for numbers in zip(*runs, strict=True))
            print(f"{name:30}{cpu:12.2f}{wall:12.2f}", flush=True)


if __name__ == "__main__":
    main()
