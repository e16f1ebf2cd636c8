import pytest

from clouduploader.cli import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--region", "eu-west-9"], "no such region here: eu-west-9. Known are: ap-northeast-1, "),
        (["--wait-factor", "0"], "--wait-factor is 0, but must be a number greater than 0 and at most 1. See"),
        (["--wait-factor", "nan"], "--wait-factor is nan, but must be a number greater than 0 and at most 1. See"),
        (["--cloud", "mine"], "--cloud is 'mine', but must be one of ec2"),
        (["--wait-factor", "soon"], "--wait-factor: 'soon' is not a valid float."),
    ],
)
def test_wrong_option_of_the_cloud_ends_in_one_line(capsys, words, said):
    assert main.main(["sandbox", *words, "true"]) == 64
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


def test_help_tells_what_is_in_the_cloud_and_its_options(capsys):
    assert main.main(["sandbox", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "ec2: an AWS account, " in shown
    assert "--region REGION ec2: Prepare a helper AMI there; can be repeated. [default: us-east-1, " in shown
    assert "--wait-factor FLOAT" in shown
