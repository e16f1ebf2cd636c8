"""The SDK's own clients, whose requests never leave the process: a double of AWS answers them.

botocore checks requests and answers against Amazon's model, and makes of refusals what it makes of real ones; and
`boto`, which is our border to it, has its say too.
"""

import copy
import functools
import threading
import types

import botocore.exceptions
import botocore.session
import botocore.validate
import pytest

from clouduploader.platforms.ec2 import boto
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import NullReporter

REGION = "eu-west-1"
STATUSES = {
    "AccessDeniedException": 403, "UnauthorizedOperation": 403, "ResourceNotFoundException": 404,
    "InternalServerException": 500, "InternalError": 500, "RequestLimitExceeded": 503, "Unavailable": 503,
}  # fmt: skip
"""The HTTP statuses of codes, where they are not 400; botocore's models of EBS, and EC2 API, "Common errors"."""


class Refusal(Exception):
    """What AWS answers instead.

    Args:
        code: Of the error.
        message: Its words.
        status: Of HTTP; None for the one that goes with the code.
        retries: How often the SDK had sent the request before.
        more: Other members of the answer.
    """

    def __init__(self, code, message="No.", *, status=None, retries=0, **more):
        super().__init__(code)
        self.status = status or STATUSES.get(code, 400)
        self.answer = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": self.status, "RetryAttempts": retries},
            **more,
        }


def hang_up():
    """The SDK's exception for a connection that was lost."""
    return botocore.exceptions.ConnectionClosedError(endpoint_url="https://aws")


def lose(_answer):
    """As a fault: the call has its effect, and its answer never comes."""
    raise hang_up()


@functools.cache
def sdk_client(service):
    """The client of which those of all accounts and regions are copies: to make one takes a hundred times as long."""
    keys = AccessKeys("AKIA", "secret", None, None)
    session = botocore.session.Session()
    return boto.client(service, region=REGION, keys=keys, session=session, reporter=NullReporter())


def copy_client(service, region):
    """Make a client with hooks of its own."""
    theirs = sdk_client(service)
    ours = object.__new__(type(theirs))  # copy.copy asks the client for attributes that it has not yet
    ours.__dict__.update(theirs.__dict__)
    ours.meta = copy.copy(theirs.meta)
    ours.meta.events = copy.copy(theirs.meta.events)
    ours.meta._client_config = copy.copy(theirs.meta.config)
    ours.meta._client_config.region_name = region
    return ours


class AnsweredSdk:
    """A double of AWS: answers the operation DescribeThings of its clients by `_DescribeThings(region, **parameters)`.

    Attributes:
        calls: What was called: region, operation and parameters.
        faults: By operation, or region and operation, a list with an item for each call, in turn: None; a Refusal; an
            exception that is raised in the call's place; or a function that gets the answer and gives another, or
            raises: then the call has had its effect.
        is_dead: Whether nothing can be reached any more.
        on_call: Called with region and operation before each answer.
    """

    def __init__(self):
        self.calls, self.faults, self.is_dead = [], {}, False
        self.on_call = lambda _region, _operation: None
        self._clients = {}
        self._lock = threading.RLock()

    def called(self, operation, region=None):
        """The parameters of each call of an operation."""
        return [given for place, name, given in self.calls if name == operation and region in (None, place)]

    def client(self, service, region=REGION):
        """A client of EC2, EBS direct or KMS."""
        with self._lock:
            if (service, region) not in self._clients:
                self._clients[service, region] = made = copy_client(service, region)
                made.meta.events.register("provide-client-params", _keep_parameters)
                made.meta.events.register_last(  # behind those of `boto`
                    "before-call", lambda model, context, **_rest: self._answer(region, model, context["given"])
                )
            return self._clients[service, region]

    def _answer(self, region, model, given):
        if self.is_dead:
            raise hang_up()
        with self._lock:
            self.calls.append((region, model.name, given))
        self.on_call(region, model.name)
        with self._lock:
            faults = self.faults.get((region, model.name)) or self.faults.get(model.name) or [None]
            fault = faults.pop(0)
            try:
                if isinstance(fault, Exception):
                    raise fault
                answer = self._played(region, model.name, given) or {}
                _check(model.output_shape, answer)
                if fault:
                    answer = fault(answer)
            except Refusal as exc:
                return types.SimpleNamespace(status_code=exc.status), exc.answer
            except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as exc:
                pytest.fail(f"{model.name}: {exc!r}")  # no error that anybody below could take for one of AWS's
        answer["ResponseMetadata"] = {"HTTPStatusCode": 200, "RetryAttempts": 0}
        return types.SimpleNamespace(status_code=200), answer

    def _played(self, region, operation, given):
        return getattr(self, f"_{operation}")(region, **given)


def _keep_parameters(params, context, **_rest):
    context["given"] = params


def _check(shape, answer):
    """Check an answer as botocore checks requests."""
    if shape is None:
        assert answer == {}
        return
    try:
        botocore.validate.validate_parameters(answer, shape)
    except botocore.exceptions.ParamValidationError as exc:
        raise AssertionError(str(exc)) from exc
