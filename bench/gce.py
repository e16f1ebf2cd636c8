"""Upload to Google: against gceimgutils with a tar.gz that GNU tar made, and gcloud up to its first request.

    /tmp/measured/bin/python bench/gce.py --gceimgutils /tmp/peer/bin/python --gcloud /usr/bin/gcloud

Needs an installation of clouduploader[fast,gce,sandbox] that is not in editable mode, and gceimgutils in an environment
of its own. A sink on loopback takes the place of Google: it hands out tokens, takes chunks, computes their CRC-32C, and
keeps nothing.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 1 << 20
BUCKET, PROJECT = "bench-bucket", "bench-project"
RECORD = """<clouduploadjob name="1">
  <state>scheduled</state>
  <user>tom</user>
  <target>gce</target>
  <filename>disk.raw</filename>
</clouduploadjob>
"""
PEER = """
import sys
from gceimgutils.gceuploadblob import GCEUploadBlob
from google.oauth2 import service_account
key, path = sys.argv[1:]
blob = GCEUploadBlob("bench-bucket", path, blob_name="disk", credentials_path=key, project="bench-project")
scopes = ["https://www.googleapis.com/auth/cloud-platform"]
# as it does itself, but without a call to www.googleapis.com that tries them
blob._credentials = service_account.Credentials.from_service_account_file(key, scopes=scopes)
blob.upload_blob()
"""


def sink(port, first):
    """Serve what stands for Google; `first` gets the time of each first request after it was set to 0."""
    import google_crc32c
    from aiohttp import web

    crcs, sizes, images = {}, {}, {}

    async def answer(request):
        if not first.value:
            first.value = time.monotonic()
        path, key = request.path, request.query.get("upload_id")
        if path.endswith("/token"):
            return web.json_response({"access_token": "t", "expires_in": 3600, "token_type": "Bearer"})
        if key:
            async for piece in request.content.iter_chunked(MIB):
                crcs[key] = google_crc32c.extend(crcs[key], piece)
                sizes[key] += len(piece)
            if request.headers["Content-Range"].endswith("/*"):
                return web.Response(status=308, headers={"Range": f"bytes=0-{sizes[key] - 1}"})
            crc32c = base64.b64encode(crcs[key].to_bytes(4, "big")).decode()
            return web.json_response({"name": "x", "size": str(sizes[key]), "crc32c": crc32c, "bucket": BUCKET})
        if "/upload/" in path:
            key = str(len(crcs))
            crcs[key], sizes[key] = 0, 0
            return web.Response(headers={"Location": f"{request.url}&upload_id={key}"})
        if request.method == "POST" and path.endswith("/images"):
            body = await request.json()
            images[body["name"]] = {**body, "status": "READY"}
            return web.json_response({"name": "o", "status": "DONE"})
        if "/operations/" in path:
            return web.json_response({"name": "o", "status": "DONE"})
        if "/images/" in path and (found := images.pop(path.rpartition("/")[2], None)):
            return web.json_response(found)
        return web.json_response(
            {"error": {"code": 404, "message": "none"}}, status=404 if request.method == "GET" else 200
        )

    async def serve():
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()

    asyncio.run(serve())


def run(argv, environment, first=None):
    """Run a program to its end, or to its first request; returns wall and CPU seconds and its peak of memory in MiB."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, start_new_session=True)
        if first is not None:
            while not first.value and process.poll() is None:
                time.sleep(0.0005)
            wall = first.value - began
            os.killpg(process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if first is None:
            wall = time.monotonic() - began
            log.seek(0)
            assert status == 0, log.read().decode()
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def disk(path, size_mib):
    """A disk with what programs look like: half of it is noise, some is text, the rest is holes."""
    noise = random.Random(1)
    words = [noise.randbytes(8).hex().encode() for _ in range(4096)]
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
        for start in range(0, size_mib, 16):
            file.seek(start * MIB)
            for _ in range(6):
                file.write(noise.randbytes(MIB // 2) + b" ".join(noise.choices(words, k=31000))[: MIB // 2])
        file.seek(510)
        file.write(b"\x55\xaa")
        file.seek(446)
        file.write(bytes([0, 0, 0, 0, 0x83, 0, 0, 0, 1, 0, 0, 0]) + (size_mib * MIB // 512 - 1).to_bytes(4, "little"))


def table(title, rows, base):
    print(f"\n{title}\n{'':44} {'wall s':>8} {'CPU s':>8} {'MiB':>6} {'wall':>6} {'CPU':>6}")
    medians = {
        name: [statistics.median(column) for column in zip(*results, strict=True)] for name, results in rows.items()
    }
    for name, (wall, cpu, memory) in medians.items():
        ratios = f"{wall / medians[base][0]:6.2f} {cpu / medians[base][1]:6.2f}"
        print(f"{name:44} {wall:8.3f} {cpu:8.3f} {memory:6.0f} {ratios}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gceimgutils", required=True, help="a Python that has gceimgutils")
    parser.add_argument("--gcloud", help="the program")
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    first = multiprocessing.Value("d", 0.0)
    port = 16443
    server = multiprocessing.Process(target=sink, args=(port, first), daemon=True)
    server.start()
    place = Path(tempfile.mkdtemp())
    try:
        measure(options, place, f"http://127.0.0.1:{port}", first)
    finally:
        server.terminate()
        shutil.rmtree(place)


def measure(options, place, url, first):
    private = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA"], capture_output=True, text=True, check=True
    ).stdout
    key = place / "key.json"
    key.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": PROJECT,
                "private_key_id": "1",
                "private_key": private,
                "client_email": f"bench@{PROJECT}.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": f"{url}/token",
            }
        )
    )
    (place / "home").mkdir()
    (place / "home" / "clouduploader.conf").write_text(f"[gce]\napi_url = {url}\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "CLOUDUPLOADER_HOME": str(place / "home"),
        "CLOUDUPLOADER_SPOOL": str(place / "spool"),
        "STORAGE_EMULATOR_HOST": url,
    }
    (place / "spool").mkdir()
    image = place / "disk.raw"
    disk(image, options.size_mib)
    archive = place / "disk.tar.gz"
    program = str(Path(sys.executable).with_name("clouduploader"))
    numbers = iter(range(10**6))

    def ours():
        words = ["--target=gce", f"--credentials-file={key}", f"--bucket={BUCKET}", f"--name=image-{next(numbers)}"]
        return [program, "upload", *words, str(image)]

    tar = ["tar", "--format=oldgnu", "-C", str(place), "-Sczf", str(archive), "disk.raw"]
    peer = [options.gceimgutils, "-c", PEER, str(key), str(archive)]
    rows = {"tar czf, then gceimgutils": [], "gceimgutils, of an archive that is there": [], "clouduploader": []}
    for _ in range(options.rounds):
        packed, sent, made = (run(argv, environment) for argv in (tar, peer, ours()))
        both = (packed[0] + sent[0], packed[1] + sent[1], max(packed[2], sent[2]))
        for name, result in zip(rows, (both, sent, made), strict=True):
            rows[name].append(result)
    table(
        f"{options.size_mib} MiB of raw disk; archive of {archive.stat().st_size // MIB} MiB by gzip -6",
        rows,
        next(iter(rows)),
    )
    if not options.gcloud:
        return
    theirs = environment | {"CLOUDSDK_CORE_DISABLE_PROMPTS": "1", "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1"}
    login = [options.gcloud, "auth", "activate-service-account", f"--key-file={key}"]
    spool = place / "spool"
    shutil.copyfile(image, spool / "1.file")
    data = {"credentials": key.read_text(), "bucket": BUCKET, "image_name": "image"}
    (spool / "1.data").write_text(json.dumps(data))
    contract = [
        program,
        "tom",
        "gce",
        str(spool / "1.file"),
        str(spool / "1.data"),
        "disk.raw",
        str(spool / "1.result"),
    ]
    rows = {"gcloud auth activate-service-account": [], "clouduploader, six arguments": []}
    for _ in range(4 * options.rounds):
        (spool / "1").write_text(RECORD)
        for name, argv, variables in zip(rows, (login, contract), (theirs, environment), strict=True):
            first.value = 0.0
            rows[name].append(run(argv, variables, first))
    table("from exec to the first request, for a token", rows, next(iter(rows)))


if __name__ == "__main__":
    main()
