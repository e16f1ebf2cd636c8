"""What a command answers with `--json`."""

import json


def data_of(out, command, exit_code):
    """The data of an answer, whose envelope must be that of the command and its exit code."""
    answer = json.loads(out)
    assert set(answer) == {"version", "command", "exit_code", "data", "error"}
    assert (answer["command"], answer["exit_code"]) == (command, exit_code)
    return answer["data"]
