"""Answers about instances.

The facts are those of the API reference, "GetConsoleOutput".
"""

import datetime

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response


def answer_get_console_output(response: EC2Response) -> ActionResult:
    """Take the place of moto's answer, which has the boot messages of a system that never ran.

    No instance of the sandbox boots, so none has ever written to its console.
    """
    response.error_on_dryrun()
    instance = response.ec2_backend.get_instance(response._get_param("InstanceId"))
    return ActionResult({"InstanceId": instance.id, "Timestamp": datetime.datetime.now(datetime.UTC)})
