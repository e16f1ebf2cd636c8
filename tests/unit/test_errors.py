import pickle

import pytest

from clouduploader import errors


def test_error_keeps_message_and_hint():
    error = errors.ImageError("the image is empty", hint="Build it again.")
    assert (error.message, error.hint, str(error)) == ("the image is empty", "Build it again.", "the image is empty")


def test_error_without_a_hint_has_none():
    assert errors.UsageError("x").hint is None


@pytest.mark.parametrize(("number", "name", "code"), [(2, "SIGINT", 130), (15, "SIGTERM", 143), (1, "SIGHUP", 129)])
def test_stopped_error_names_the_signal_and_ends_like_a_shell(number, name, code):
    error = errors.StoppedError(number)
    assert (error.message, error.exit_code, error.hint) == (f"stopped by {name}", code, None)


def test_exit_code_is_its_number_and_has_a_meaning():
    assert errors.ExitCode(75) is errors.ExitCode.TEMPORARY
    for code in errors.ExitCode:
        assert int(code) == code.value
        assert code.meaning.endswith(".")
        assert pickle.loads(pickle.dumps(code)) is code  # noqa: S301 our own bytes


def test_sentence_is_message_and_hint():
    assert errors.ConfigError("x is wrong.", hint="Set y.").sentence() == "x is wrong. Set y."
    assert errors.ConfigError("x is wrong").sentence() == "x is wrong."
