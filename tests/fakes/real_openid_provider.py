"""oidc-provider of npm, in a process of its own."""

import contextlib
import shutil
import subprocess
from pathlib import Path

from clouduploader.sandbox import installation

PACKAGES = ("oidc-provider@9.13.3",)
CLIENT, SECRET = "uploads", "made-up-secret-of-the-tests"
CALLBACK = "/ui/openid/callback"


@contextlib.contextmanager
def running():
    """Give the issuer of a provider that runs inside the block; its users are whatever they call themselves.

    olga is in the group cloud-admins, eve in none, all others in cloud-users.
    """
    place = installation.node_packages("openid", PACKAGES, say=print)
    script = Path(__file__).with_suffix(".mjs")
    module = place / "node_modules" / "oidc-provider" / "lib" / "index.js"
    node = shutil.which("node")
    assert node, "the Debian package nodejs is needed"
    with subprocess.Popen(
        [node, script, module, CLIENT, SECRET, CALLBACK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            issuer = process.stdout.readline().strip()
            assert issuer.startswith("http://127.0.0.1:"), process.stderr.read()
            yield issuer
        finally:
            process.terminate()
