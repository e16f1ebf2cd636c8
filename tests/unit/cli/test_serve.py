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
