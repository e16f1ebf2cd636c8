import json

import pytest


@pytest.mark.parametrize("options", [(), ("--rsa",)])
def test_pubkey_prints_the_key_as_it_is(run_in_home, options):
    assert run_in_home("pubkey", *options)[0] == 66
    run_in_home("keygen", *options)
    code, out, err = run_in_home("pubkey", *options)
    assert (code, err) == (0, "")
    assert out.startswith("-----BEGIN P")
    assert out.endswith("-----\n")
    assert json.loads(run_in_home("pubkey", "--json", *options)[1])["data"] == {"public_key": out}
