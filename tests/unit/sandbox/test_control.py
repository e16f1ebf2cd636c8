"""The control channel, with a cloud that is nothing else."""

import datetime
import hashlib
import json
import lzma

import pytest
from werkzeug.test import Client

from clouduploader.sandbox.call_record import CallRecord
from clouduploader.sandbox.clock import CloudClock
from clouduploader.sandbox.cloud import Emulator, InitialState, SandboxServices
from clouduploader.sandbox.control import SandboxControl
from clouduploader.sandbox.faults import Fault, Faults
from clouduploader.sandbox.layout import Layout


class MinimalCloud(Emulator):
    def __init__(self, layout):
        self.faults = Faults(Fault)
        self.routes = {("POST", "double"): lambda body: body * 2}
        self._layout = layout

    async def start(self, control):
        raise NotImplementedError

    def reset(self):
        (self._layout.home / "settings").write_text("as at the start")
        return InitialState(description={"endpoint": "here"}, target="minimal", target_data={"size": 1})


@pytest.fixture
def services(tmp_path):
    return SandboxServices(layout=Layout(tmp_path), clock=CloudClock(), record=CallRecord(tmp_path / "calls.jsonl"))


@pytest.fixture
def cloud(services):
    return MinimalCloud(services.layout)


@pytest.fixture
def client(services, cloud):
    services.layout.sample.touch()  # it is made only where there is none; that takes half a second
    control = SandboxControl(services, cloud)
    control.reset()
    return Client(control)


def test_start_gives_the_cloud_a_home_a_job_an_image_and_a_description(services, cloud):
    SandboxControl(services, cloud).reset()
    layout = services.layout
    described = json.loads(layout.description.read_text())
    assert hashlib.sha256(lzma.decompress(layout.sample.read_bytes())).hexdigest() == described["sample"]["sha256"]
    assert (described["endpoint"], described["spool"]) == ("here", str(layout.spool))
    assert json.loads((layout.spool / "1.data").read_text()) == {"size": 1}
    assert "<target>minimal</target>" in (layout.spool / "1").read_text()
    assert (layout.home / "settings").read_text() == "as at the start"


def test_reset_takes_back_what_a_test_did(services, cloud, client):
    client.post("/sandbox/faults", json={"action": "X"})
    client.post("/sandbox/clock", json={"offset_seconds": 60})
    services.record.add({"action": "X"})
    (services.layout.home / "more").touch()
    assert client.get("/sandbox/calls").json == [{"action": "X"}]
    assert services.clock.offset == datetime.timedelta(seconds=60)
    assert client.post("/sandbox/reset").status_code == 200
    assert cloud.faults.hits("X") == []
    assert services.clock.offset == datetime.timedelta()
    assert client.get("/sandbox/calls").json == []
    assert not (services.layout.home / "more").exists()


def test_routes_of_the_cloud_are_answered(client):
    assert client.post("/sandbox/double", json=21).json == 42


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("nothing", None, 404, "no such thing"),
        ("clock", {}, 400, "KeyError: 'offset_seconds'"),
        ("faults", {"action": "X", "cod": "Y"}, 400, "TypeError"),
    ],
)
def test_bad_request_is_answered_with_its_reason(client, path, body, status, words):
    response = client.post(f"/sandbox/{path}", json=body)
    assert response.status_code == status
    assert words in response.json["error"]
