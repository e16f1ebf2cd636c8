"""The exit codes are an interface: OBS, dispatchers and scripts go by them."""

import pytest

from clouduploader import errors
from clouduploader.errors import ClouduploaderError, ExitCode

CODES = {
    "ClouduploaderError": 70,
    "UsageError": 64,
    "DataError": 65,
    "TargetDataError": 65,
    "TakenValueError": 65,
    "JobFileError": 65,
    "JobStateError": 65,
    "ImageError": 65,
    "NotFoundError": 66,
    "AbsentError": 66,
    "ForeignError": 66,
    "MissingFileError": 66,
    "NoSuchJobError": 66,
    "NoSuchAccountError": 66,
    "NoSuchTokenError": 66,
    "UnavailableError": 69,
    "UnknownTargetError": 69,
    "PluginLoadError": 69,
    "MissingProgramError": 69,
    "CannotCreateError": 73,
    "LocalIOError": 74,
    "TransientError": 75,
    "ThrottledError": 75,
    "NetworkError": 75,
    "LockedError": 75,
    "PlatformReplyError": 76,
    "DeniedError": 77,
    "CredentialsError": 77,
    "NotOwnerError": 77,
    "ConfigError": 78,
}
MEMBERS = {
    "OK": 0,
    "USAGE": 64,
    "DATA": 65,
    "NO_INPUT": 66,
    "UNAVAILABLE": 69,
    "SOFTWARE": 70,
    "CANNOT_CREATE": 73,
    "LOCAL_IO": 74,
    "TEMPORARY": 75,
    "PROTOCOL": 76,
    "DENIED": 77,
    "CONFIG": 78,
    "OPEN_ACCOUNT": 79,
    "INTERRUPTED": 130,
    "PIPE_CLOSED": 141,
    "TERMINATED": 143,
}


def _subclasses(kind):
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_error_ends_with_its_exit_code(name, code):
    assert getattr(errors, name)("x").exit_code == code


def test_every_error_of_the_module_is_in_the_table():
    found = {kind.__name__ for kind in _subclasses(ClouduploaderError) if kind.__module__ == errors.__name__}
    assert found | {"ClouduploaderError"} == CODES.keys() | {"StoppedError"}  # its code depends on the signal


def test_exit_codes_have_not_moved():
    assert {code.name: code.value for code in ExitCode} == MEMBERS


def test_every_code_of_an_error_is_one_that_the_manual_page_knows():
    assert set(CODES.values()) <= set(ExitCode)
    assert errors.StoppedError(2).exit_code == ExitCode.INTERRUPTED
    assert errors.StoppedError(15).exit_code == ExitCode.TERMINATED
