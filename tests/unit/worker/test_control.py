"""Requests to a worker."""

from clouduploader.worker import control


def test_request_after_the_end_is_written_into_no_other_file(tmp_path):
    requests = control.WorkerControl()
    number = requests.fileno()
    requests.close()
    path = tmp_path / "file"
    with path.open("wb", buffering=0) as file:
        assert file.fileno() == number  # the kernel gives the lowest that is free
        requests.drain()
        requests.reload()
        requests.leave()
    assert path.read_bytes() == b""
