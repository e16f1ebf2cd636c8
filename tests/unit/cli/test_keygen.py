import json


def test_keygen_makes_keys_once(run_in_home, keyring):
    code, out, err = run_in_home("keygen")
    assert (code, err) == (0, "")
    assert out.startswith(f"Made {keyring.gpg.path}, which belongs to ")
    code, out, err = run_in_home("keygen")
    assert (code, out) == (73, "")
    assert f"{keyring.gpg.path} is there already. Move it away first;" in err


def test_keygen_rsa_makes_the_files_of_obs(run_in_home, keyring):
    code, out, _ = run_in_home("keygen", "--rsa", "--json")
    paths = [str(keyring.rsa.secret_path), str(keyring.rsa.public_path)]
    assert json.loads(out)["data"]["paths"] == paths
    assert code == 0
    assert run_in_home("keygen", "--rsa")[0] == 73
