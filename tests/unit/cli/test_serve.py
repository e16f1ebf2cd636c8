import pytest


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--listen", "foo"], 64, "--listen is 'foo', not ADDRESS:PORT"),
        (["--listen", ""], 64, "--listen is '', not ADDRESS:PORT"),
        (["--listen", "127.0.0.1:99999"], 64, "--listen is '127.0.0.1:99999'"),
        (["--allow", "10.0.0.0/99"], 64, "--allow is '10.0.0.0/99', not a network"),
        (["--allow", ""], 64, "--allow is '', not a network"),
        ([], 78, "clouduploader.conf: listen is 'here', not ADDRESS:PORT"),
    ],
)
def test_wrong_value_is_the_command_lines_or_the_settings(tmp_path, run_here, words, code, message):
    (tmp_path / "clouduploader.conf").write_text("[server]\nlisten = here\n" * (not words))
    done = run_here("--home", tmp_path, "--spool", tmp_path, "serve", *words, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--broker", "amqp://mq"], 78, "there is a broker, but no URL by which hosts reach this server"),
        (["--broker", "redis://mq"], 78, "Redis can't be the broker"),
        (["--broker", "amqp://mq", "--server", "https://here", "--no-worker"], 64, "--broker needs the worker"),
    ],
)
def test_broker_that_can_not_be_used_is_refused_in_one_line(tmp_path, run_here, words, code, message):
    done = run_here("--home", tmp_path, "--spool", tmp_path, "serve", "--listen", "127.0.0.1:0", *words, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_broker_without_its_authorities_is_refused_in_one_line(tmp_path, run_here):
    (tmp_path / "clouduploader.conf").write_text("[cluster]\nbroker_ca = /nowhere\nbroker = amqps://mq\n")
    words = ("--listen", "127.0.0.1:0", "--server", "https://here")
    done = run_here("--home", tmp_path, "--spool", tmp_path, "serve", *words, cwd=tmp_path)
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1].endswith(
        "the certificates in /nowhere can't be read: No such file or directory."
    )
