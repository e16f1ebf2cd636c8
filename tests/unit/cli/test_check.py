import pytest

from clouduploader.cli import main


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Return a function that runs `check` of an empty home, without credentials; gives code, lines and stderr."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("PATH", "/nowhere")

    def check(*words):
        code = main.main(["check", "--home", str(tmp_path), "--spool", str(tmp_path), *words])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return check


def test_method_decides_what_is_looked_at(check):
    code, lines, _ = check("--region", "eu-west-1")
    assert code == 78
    assert any(line.startswith("failure ec2uploadimg:") for line in lines)
    _, lines, _ = check("--region", "eu-west-1", "--method", "ebs-direct")
    assert not any("ec2uploadimg" in line or "ec2utils" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "expected", "message"),
    [
        (["--method", "ebsdirect"], 65, "must be ec2uploadimg, ebs-direct or auto (did you mean ebs-direct?)"),
        (["--method", "auto", "--target", "directory"], 64, "there is no option --method for the target directory"),
    ],
)
def test_wrong_method_is_named(check, words, expected, message):
    code, lines, err = check(*words)
    assert (code, lines) == (expected, [])
    assert message in err


def test_without_a_target_all_that_is_configured_is_looked_at(check, tmp_path):
    (tmp_path / "clouduploader.conf").write_text(f"[directory]\npath = {tmp_path / 'images'}\n")
    (tmp_path / "clouds.yaml").write_text("clouds: {mine: {auth: {auth_url: https://keystone.example.com}}}\n")
    code, lines, _ = check()
    assert any("clouds.yaml: clouds: mine" in line for line in lines)
    assert any(str(tmp_path / "images") in line for line in lines)
    assert not any("AWS" in line or "ec2" in line for line in lines)
    assert code == 78
    _, lines, _ = check("--target", "ec2", "--region", "eu-west-1")
    assert any("ec2" in line for line in lines)
