"""The server and its description, held against each other by schemathesis asking all there is.

`EXAMPLES=200 pytest tests/e2e/test_openapi.py` looks further, and elsewhere each time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from clouduploader.model import job_xml
from clouduploader.model.job import JobState
from clouduploader.server import operations

DESCRIPTION = Path(operations.__file__).with_name("openapi.json")
METHODS = ("get", "head", "post", "put")
EXCLUDED = (
    "unsupported_method",  # OBS answers with 400
    "not_a_server_error",  # some are no fault: those in description_hooks.py
    "positive_data_acceptance",  # so are some refusals
)


def test_server_is_as_described(make_spool, make_job, serve, tmp_path):
    description = json.loads(DESCRIPTION.read_text("utf-8"))
    jobs = make_spool()
    for name in "0123456789":  # schemathesis asks for these often, and hardly for the ones that it makes
        make_job(jobs, name, state=JobState.FAILED, log=b"0123456789", details="no")
    (jobs.directory / "next").write_bytes(job_xml.serialize_next(10**9))
    server = serve(jobs, idle_seconds="1")
    (tmp_path / "etc" / "cloudupload" / "_pubkey").write_text("a key")
    host, port = server.address
    examples = os.environ.get("EXAMPLES")
    done = subprocess.run(
        [Path(sys.executable).with_name("st"), "run", DESCRIPTION, f"--url=http://{host}:{port}",
         "--phases=coverage,fuzzing", f"--exclude-checks={','.join(EXCLUDED)}", "--request-timeout=30", "--no-color",
         *([f"--max-examples={examples}"] if examples else ["--max-examples=5", "--generation-deterministic"])],
        env=os.environ
        | {"SCHEMATHESIS_HOOKS": "fakes.description_hooks", "PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(len(item.keys() & set(METHODS)) for item in description["paths"].values())
    assert f"  Tested: {count}\n" in done.stdout
    assert "event=error" not in server.log.getvalue()
