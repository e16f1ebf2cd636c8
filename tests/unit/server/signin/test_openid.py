"""What is believed of an OpenID provider, and what is not."""

import asyncio
import base64
import dataclasses
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fakes import openid_provider

from clouduploader.server.replies import RefusalError
from clouduploader.server.signin import openid
from clouduploader.server.signin.settings import OpenIdSettings
from clouduploader.store.tokens import Role

REDIRECT = "https://upload.example.org/ui/openid/callback"


@pytest.fixture
def provider():
    with openid_provider.running() as made:
        yield made


@pytest.fixture
def wanted(provider):
    return OpenIdSettings(
        issuer=provider.issuer, client_id=openid_provider.CLIENT, name="us", scopes=("openid", "profile"),
        user_claim="sub", role_claim="groups", users=("users",), admins=("admins",),
    )  # fmt: skip


@pytest.fixture
def sign_in(provider, wanted, tmp_path):
    """Return a function that signs in, and gives the claims."""
    ours = openid.Provider(wanted, tmp_path)

    def call(*, verifier="v" * 43, nonce="n1", used=ours, redeemed_nonce=None):
        async def run():
            url = await used.authorization_url(redirect_uri=REDIRECT, state="s1", nonce=nonce, verifier=verifier)
            back = provider.authorize(url)
            assert back["state"] == "s1"
            wanted_nonce = redeemed_nonce or nonce
            return await used.redeem(back["code"], redirect_uri=REDIRECT, nonce=wanted_nonce, verifier=verifier)

        used._asking = asyncio.Lock()
        return asyncio.run(run())

    call.provider = ours
    return call


def refused(sign_in, why, **options):
    with pytest.raises(RefusalError) as caught:
        sign_in(**options)
    assert caught.value.status == 502
    assert why in caught.value.message


def test_claims_of_a_good_answer_are_believed(sign_in, provider):
    assert sign_in()["sub"] == "248"
    form = provider.requests[1][3]
    assert form["redirect_uri"] == REDIRECT
    assert form["client_id"] == openid_provider.CLIENT
    assert "client_secret" not in form


@pytest.mark.parametrize("methods", [None, ["client_secret_basic"], ["client_secret_post"], 7])
def test_secret_is_sent_as_the_provider_takes_it(sign_in, provider, tmp_path, methods):
    (tmp_path / "openid-secret").write_text("s e:c\n")
    if methods:
        provider.configuration["token_endpoint_auth_methods_supported"] = methods
    sign_in()
    _, _, headers, form = provider.requests[1]
    if methods == ["client_secret_post"]:
        assert form["client_secret"] == "s e:c"
    else:
        assert headers["Authorization"] == f"Basic {base64.b64encode(b'uploads:s+e%3Ac').decode()}"
        assert "client_secret" not in form


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://evil.example"}, "InvalidIssuerError"),
        ({"aud": "another"}, "InvalidAudienceError"),
        ({"aud": [openid_provider.CLIENT, "another"]}, "for another client"),
        ({"azp": "another"}, "for another client"),
        ({"exp": int(time.time()) - 120}, "ExpiredSignatureError"),
        ({"exp": None}, "ID token is not taken"),
        ({"iat": int(time.time()) + 86_400}, "ImmatureSignatureError"),
        ({"sub": None}, "ID token is not taken"),
        ({"sub": ["tom"]}, "ID token is not taken"),
        ({"nonce": "n2"}, "not for this sign-in"),
        ({"nonce": None}, "not for this sign-in"),
        ({"nonce": ["n1"]}, "not for this sign-in"),
    ],
)
def test_claims_that_are_not_for_us_are_refused(sign_in, provider, changes, why):
    provider.claims |= changes
    provider.claims = {name: value for name, value in provider.claims.items() if value is not None or name == "nonce"}
    refused(sign_in, why)


def test_token_of_another_sign_in_is_refused(sign_in):
    refused(sign_in, "not for this sign-in", redeemed_nonce="n2")


def test_token_without_a_signature_is_refused(sign_in, provider):
    provider.key, provider.algorithm = None, "none"
    refused(sign_in, "algorithm that is not taken")


def test_token_signed_by_what_is_public_is_refused(sign_in, provider):
    provider.key, provider.algorithm = provider.keys[0]["x"] * 2, "HS256"
    refused(sign_in, "algorithm that is not taken")


@pytest.mark.parametrize("kid", ["k1", "k2", None])
def test_token_signed_by_another_key_is_refused(sign_in, provider, kid):
    provider.key, provider.header = ec.generate_private_key(ec.SECP256R1()), {"kid": kid} if kid else {}
    refused(sign_in, "none of its keys" if kid == "k2" else "InvalidSignatureError")


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "EdDSA"])
def test_other_algorithms_are_taken(sign_in, provider, algorithm):
    if algorithm == "EdDSA":
        key, maker = ed25519.Ed25519PrivateKey.generate(), jwt.algorithms.OKPAlgorithm
    else:
        key, maker = rsa.generate_private_key(65537, 2048), jwt.algorithms.RSAAlgorithm
    provider.keys = [{**json.loads(maker.to_jwk(key.public_key())), "kid": "k1"}]
    provider.key, provider.algorithm = key, algorithm
    assert sign_in()["sub"] == "248"


@pytest.mark.parametrize(
    "change", [{"use": "enc"}, {"alg": "ES384"}, {"kty": "oct", "k": "AAAA"}, {"kty": "?"}, {"x": "!"}, {"kty": 5}]
)
def test_key_that_is_not_for_signatures_of_its_kind_is_refused(sign_in, provider, change):
    provider.keys[0] |= change
    with pytest.raises(RefusalError, match="the OpenID provider can't be used"):
        sign_in()


def test_new_key_is_asked_for_but_not_again_and_again(sign_in, provider):
    sign_in()
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(provider.key.public_key()))
    provider.keys, provider.header = [{**public, "kid": "k2"}], {"kid": "k2"}
    refused(sign_in, "none of its keys")  # it was asked a moment ago
    sign_in.provider._keys = (time.monotonic() - openid.KEYS_SECONDS - 1, sign_in.provider._keys[1])
    assert sign_in()["sub"] == "248"
    assert [path for _, path, _, _ in provider.requests].count("/keys") == 2


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        ("/.well-known/openid-configuration", (302, {"Location": "/keys"}, b""), "it answers 302"),
        ("/.well-known/openid-configuration", (200, {}, b"[]"), "no JSON object"),
        ("/.well-known/openid-configuration", (200, {}, b"{"), "no JSON object"),
        ("/.well-known/openid-configuration", (200, {}, b"[" * 100_000), "no JSON object"),
        ("/.well-known/openid-configuration", (200, {}, b" " * (openid.MAX_BYTES + 1)), "it sends too much"),
        ("/.well-known/openid-configuration", (200, {}, b'{"issuer": "https://evil.example"}'), "another issuer"),
        ("/keys", (200, {}, b'{"keys": 7}'), "its keys are no list"),
        ("/keys", (200, {}, b'{"keys": [7]}'), "none of its keys"),
        ("/token", (400, {}, b'{"error": "invalid_grant"}'), "it answers 400, invalid_grant"),
        ("/token", (400, {}, b'{"error": "a\\nb"}'), "it answers 400"),
        ("/token", (200, {}, b'{"access_token": "x"}'), "no id_token"),
        ("/token", (200, {}, b'{"id_token": ["x"]}'), "no id_token"),
        ("/token", (200, {}, b'{"id_token": "a.b.c"}'), "ID token is not taken"),
        ("/token", (200, {}, b'{"id_token": "\\ud800"}'), "ID token is not taken"),
    ],
)  # fmt: skip
def test_answer_that_makes_no_sense_is_refused(sign_in, provider, path, answer, why):
    provider.answers[path] = answer
    refused(sign_in, why)


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example/x",
        "ftp://127.0.0.1/",
        None,
        7,
        "https://",
        "//x",
        "https://a@b/",
        "https://idp.example/\r\nx",
    ],
)
@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
def test_endpoint_that_others_could_read_is_not_used(sign_in, provider, name, url):
    provider.configuration[name] = url
    refused(sign_in, f"no {name} with https")


def test_provider_that_is_not_there_is_told_of(sign_in, wanted, tmp_path):
    gone = openid.Provider(dataclasses.replace(wanted, issuer="http://127.0.0.1:9"), tmp_path)
    refused(sign_in, "it can't be asked", used=gone)


def test_code_is_worth_nothing_without_its_verifier(sign_in, provider, wanted, tmp_path):
    provider.challenge = "x"
    ours = openid.Provider(wanted, tmp_path)
    with pytest.raises(RefusalError, match="invalid_grant"):
        asyncio.run(ours.redeem("a-code", redirect_uri=REDIRECT, nonce="n", verifier="guessed"))


def test_claims_that_the_token_lacks_come_from_the_user_information(sign_in, provider):
    del provider.claims["groups"]
    provider.configuration["userinfo_endpoint"] = f"{provider.issuer}/me"
    told = {"sub": "248", "groups": ["admins"], "iss": "x"}
    provider.answers["/me"] = (200, {}, json.dumps(told).encode())
    claims = sign_in()
    assert (claims["groups"], claims["iss"]) == (["admins"], provider.issuer)
    assert provider.requests[-1][2]["Authorization"] == "Bearer at"
    provider.answers["/me"] = (200, {}, json.dumps(told | {"sub": "249"}).encode())
    refused(sign_in, "another account")


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": ["users"]}, Role.USER),
        ({"groups": "users"}, Role.USER),
        ({"groups": ["users", "admins"]}, Role.ADMIN),
        ({"groups": [["admins"], "users"]}, Role.USER),
    ],
)
def test_role_is_that_of_the_claims(wanted, claims, role):
    assert openid.identity({"sub": "tom", **claims}, wanted) == ("tom", role)


@pytest.mark.parametrize("groups", [[], ["others"], None, 5, {"users": 1}, "users admins", [["users"]]])
def test_account_that_has_no_role_is_refused(wanted, groups):
    with pytest.raises(RefusalError) as caught:
        openid.identity({"sub": "tom", "groups": groups}, wanted)
    assert caught.value.status == 403
    anyone = dataclasses.replace(wanted, users=("any",))
    assert openid.identity({"sub": "tom", "groups": groups}, anyone) == ("tom", Role.USER)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256, None, 5, ["tom"]])
def test_account_that_has_no_name_is_refused(wanted, name):
    with pytest.raises(RefusalError, match="no claim sub that can be a name"):
        openid.identity({"sub": name, "groups": ["users"]}, wanted)


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_address_that_is_not_verified_is_no_name(wanted, verified):
    by_mail = dataclasses.replace(wanted, user_claim="email")
    claims = {"email": "tom@example.org", "groups": ["users"]}
    with pytest.raises(RefusalError, match="not verified"):
        openid.identity({**claims, "email_verified": verified}, by_mail)
    assert openid.identity({**claims, "email_verified": True}, by_mail)[0] == "tom@example.org"
