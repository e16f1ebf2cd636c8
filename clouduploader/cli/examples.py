"""Examples for the help and the manual page, by command."""

_EXAMPLES = {
    "account": """\
clouduploader account create tom
clouduploader account show tom
clouduploader account verify tom
""",
    "check": """\
clouduploader check --region eu-west-1
clouduploader check --data data.json
""",
    "cleanup": """\
clouduploader cleanup --dry-run
clouduploader cleanup --job 7
clouduploader cleanup --older-than 2d --region eu-west-1 --data data.json
""",
    "cluster": """\
clouduploader cluster status
clouduploader cluster drain host-2 --wait
clouduploader cluster undrain host-2
""",
    "encrypt": """\
clouduploader encrypt < secret.txt
clouduploader encrypt --field password data.json -o encrypted.json
""",
    "image": """\
clouduploader image my.x86_64.raw.xz
clouduploader image --quick --json my.qcow2
""",
    "inspect": """\
clouduploader inspect 7
clouduploader inspect 7 --json --lines 0
""",
    "keygen": """\
clouduploader keygen
clouduploader keygen --rsa
""",
    "kill": """\
clouduploader kill --wait 7
clouduploader kill --yes --force 7 8
""",
    "list": """\
clouduploader list --running
clouduploader list --user tom --state failed --limit 5
clouduploader list --json --limit 1
""",
    "log": """\
clouduploader log --follow 7
clouduploader log 7 --lines 20
""",
    "platforms": """\
clouduploader platforms
clouduploader platforms --schema directory
""",
    "pubkey": """\
clouduploader pubkey > upload-key.asc
""",
    "resume": """\
clouduploader resume 7
""",
    "retry": """\
clouduploader retry 7
""",
    "sandbox": """\
clouduploader sandbox
clouduploader sandbox --region eu-west-1 -- ./my-test.sh
""",
    "serve": """\
clouduploader serve --listen 127.0.0.1:5452 --allow 127.0.0.0/8 --allow 10.1.0.0/16
""",
    "submit": """\
clouduploader submit --user tom --region eu-west-1 --name my-image my.x86_64.raw.xz
clouduploader submit --server http://obs.example.org:5452 --wait --data data.json my.x86_64.raw.xz
""",
    "token": """\
clouduploader token create --user tom --expires 30d --note "nightly build"
clouduploader token list --user tom
clouduploader token revoke 3kTq9ZbX
""",
    "upload": """\
clouduploader upload --region eu-west-1 --name my-image my.x86_64.raw.xz
clouduploader upload --dry-run --data data.json my.x86_64.raw.xz
clouduploader upload --json --target directory my.x86_64.raw.xz
""",
    "worker": """\
clouduploader worker --user obsrun
""",
}

TASKS = {
    "Try it in a private cloud on this machine": "clouduploader sandbox",
    "See what an upload would do, and what it costs at most": "clouduploader upload --dry-run --region eu-west-1 "
    "--name my-image my.x86_64.raw.xz",
    "Do it, and print the id of the image": "clouduploader upload --region eu-west-1 --name my-image my.x86_64.raw.xz",
    "Go on after a crash": "clouduploader resume 7",
    "Hand an image to the service, and wait until it is in the cloud": "clouduploader submit --wait --server "
    "http://obs.example.org:5452 --region eu-west-1 --name my-image my.x86_64.raw.xz",
    "Watch a job": "clouduploader log --follow 7",
    "See which hosts upload for the service": "clouduploader cluster status",
    "See what uploads left in the cloud": "clouduploader cleanup --dry-run",
}
"""Examples across all commands, by what they are for."""


def epilog(command: str) -> str | None:
    """Return the examples of a command as Click keeps them, each line by itself; None if it has none."""
    found = _EXAMPLES.get(command)
    return f"Examples:\n\n\b\n{found}" if found else None
