import pytest

from clouduploader.errors import ConfigError
from clouduploader.store import credentials


@pytest.fixture
def read(tmp_path):
    return lambda name: credentials.read(name, {"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_secret_is_handed_over_in_a_file(read, tmp_path):
    (tmp_path / "token").write_text(" secret\n")
    (tmp_path / "empty").write_text("\n")
    assert (read("token"), read("empty"), read("other")) == ("secret", None, None)
    assert credentials.read("token", {}) is None


def test_link_of_the_manager_is_followed(read, tmp_path):
    (tmp_path / "data").write_text("secret")
    (tmp_path / "token").symlink_to("data")
    assert read("token") == "secret"


def test_what_can_not_be_read_is_one_line_without_the_secret(read, tmp_path):
    (tmp_path / "token").write_bytes(b"\xffsecret")
    (tmp_path / "place").mkdir()
    for name in ("token", "place"):
        with pytest.raises(ConfigError, match=f"the secret in .*/{name} ") as caught:
            read(name)
        assert "secret\\" not in str(caught.value)
        assert caught.value.__context__ is None or isinstance(caught.value.__context__, OSError)
