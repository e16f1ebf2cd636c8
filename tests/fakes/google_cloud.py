"""Google's cloud as the sandbox has it, in a thread of this process."""

import asyncio
import datetime
import json
import socket
import subprocess
import tempfile
import threading
import urllib.request
from pathlib import Path

from gcp_storage_emulator.server import create_server

from clouduploader.platforms.gce import rights
from clouduploader.sandbox.call_record import CallRecord
from clouduploader.sandbox.clock import CloudClock
from clouduploader.sandbox.faults import Faults
from clouduploader.sandbox.gateway import Gateway, HttpFault
from clouduploader.sandbox.gce.site import GoogleSite, SiteSettings, name_call, refuse

PROJECT, BUCKET = "clouduploader-test", "clouduploader-bucket"
EMAIL = f"uploader@{PROJECT}.iam.gserviceaccount.com"


class GoogleCloud:
    """One that serves until it is closed.

    Attributes:
        api_url: As the setting.
        key: The JSON key of its service account.
        site: See GoogleSite.
        faults: What goes wrong on purpose.
        clock: Its clock.
    """

    def __init__(self):
        self._directory = tempfile.TemporaryDirectory()
        path = Path(self._directory.name)
        self.clock, self.faults = CloudClock(), Faults(HttpFault)
        self.record = CallRecord(path / "calls")
        (path / "calls").touch()
        private, public = key_pair()
        back, front, emulator = free_ports(3)
        self._emulator = create_server("127.0.0.1", emulator, in_memory=True, default_bucket=BUCKET)
        self._emulator.start()
        self.api_url = f"http://127.0.0.1:{front}/{{service}}"
        self._settings = SiteSettings(
            project=PROJECT, bucket=BUCKET, email=EMAIL, public_key=public, api_url=self.api_url
        )
        self.key = json.dumps(
            {"type": "service_account", "project_id": PROJECT, "client_email": EMAIL, "private_key": private}
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._front = Gateway(self.record, self.faults, refuse)
        self._back = Gateway(CallRecord(path / "behind"), Faults(HttpFault), refuse)
        (path / "behind").touch()
        self._place, self._emulator_url = path, f"http://127.0.0.1:{emulator}"
        self.reset()
        self._run(self._serve(front, back))

    async def _serve(self, front, back):
        await self._back.serve(back, lambda request: self.site.answer(request), service="site", name_call=name_call)
        await self._front.serve(front, f"http://127.0.0.1:{back}", service="google", name_call=name_call)

    def reset(self):
        """Forget all that is in it."""
        self._emulator.wipe(keep_buckets=True)
        self.faults.replace([])
        self.clock.offset = datetime.timedelta()
        (self._place / "calls").write_text("")
        self.site = GoogleSite(self._settings, backend=self._emulator_url, directory=self._place, clock=self.clock)
        self.site.identity.rights = {
            "bucket": rights.ON_BUCKET,
            "project": (*rights.ON_PROJECT, *(one for extra in rights.EXTRAS.values() for one in extra)),
        }

    def objects(self):
        """The names of what is in the bucket."""
        return [one["name"] for one in self._run(self.site.storage.objects())]

    def replace_object(self, name, content):
        """Put something else in the place of what is in the bucket."""
        url = f"{self._emulator_url}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}"
        urllib.request.urlopen(url, content).close()  # noqa: S310 of the emulator

    def calls(self, action):
        """The calls of one kind so far."""
        return [call for call in self.record.calls() if call["action"] == action]

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def close(self):
        """Serve no more."""
        self._run(self._front.close())
        self._run(self._back.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._emulator.stop()
        self._directory.cleanup()


def key_pair():
    """Make an RSA key, a short one, for each upload reads it; returns the private and the public one in PEM."""
    private = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    public = subprocess.run(["openssl", "pkey", "-pubout"], input=private, capture_output=True, text=True, check=True)
    return private, public.stdout


def free_ports(count):
    """Find ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
