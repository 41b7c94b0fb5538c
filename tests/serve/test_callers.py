"""Who is calling: tokens of users, from a mapping, a function, a file or an identity provider."""

from __future__ import annotations

import asyncio
import hashlib
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from servers.ports import free_port

from praisonaiagents.errors import ConfigError, ConfigTypeError
from praisonaiagents.serve import JWT, Settings
from praisonaiagents.serve.callers import Callers, read_users
from praisonaiagents.serve.guard import Rate
from praisonaiagents.serve.problems import Problem

SECRET = "a-secret-of-more-than-sixty-four-characters-" + "x" * 32


def who(settings: Settings, token: str | None = None, **headers: str) -> str | None:
    """The user that a request with this token is of."""
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if token is not None:
        sent.append(bearer(token))
    caller = asyncio.run(Callers(settings).caller(sent, Rate(0), "here"))
    return caller.user_id if caller else None


def bearer(token: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {token}".encode()


@pytest.fixture
def guesses(monkeypatch: pytest.MonkeyPatch) -> Rate:
    """Two, and no time passes in which there would be more."""
    monkeypatch.setattr("praisonaiagents.serve.guard.time", SimpleNamespace(monotonic=lambda: 0.0))
    return Rate(2)


def signed(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    claims = {"sub": "alice", "exp": time.time() + 60} | claims
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm, headers=headers)


def test_tokens_of_users_in_every_form_they_are_given_in() -> None:
    digest = hashlib.sha256(b"carols-token").hexdigest()
    users = Settings(users={"alices-token": "alice", f"sha256:{digest}": "carol"})
    assert who(users, "alices-token") == "alice"
    assert who(users, "carols-token") == "carol"
    assert who(users, f"sha256:{digest}") is None
    assert who(users, x_auth_token="alices-token") == "alice"
    assert who(users, "alices-token ") == "alice"
    assert who(users) is who(users, "bobs-token") is None


def test_a_function_says_who_it_is() -> None:
    async def later(token: str) -> str | None:
        await asyncio.sleep(0)
        return {"good-token": "dave"}.get(token)

    def now(token: str) -> str | None:
        return {"good-token": "dave"}.get(token)

    for look in (later, now, lambda token: later(token)):
        assert who(Settings(users=look), "good-token") == "dave"
        assert who(Settings(users=look), "bad-token") is None


def test_a_function_that_fails_is_the_servers_fault(caplog: pytest.LogCaptureFixture) -> None:
    def broken(token: str) -> str:
        raise ConfigError(f"nothing is set up for {token}")

    for look, why in ((lambda token: 5, "not int"), (broken, "nothing is set up")):
        with pytest.raises(Problem, match="the server failed") as failed:
            who(Settings(users=look), "good-token")
        assert failed.value.status == 500
        assert why in caplog.text


def test_of_many_guesses_at_once_few_are_looked_up(guesses: Rate) -> None:
    looked_up: list[str] = []

    async def look(token: str) -> str | None:
        looked_up.append(token)
        await asyncio.sleep(0)
        return None

    async def guess() -> list[Any]:
        callers = Callers(Settings(users=look))
        at_once = (callers.caller([bearer(f"guess-{number}")], guesses, "here") for number in range(99))
        return await asyncio.gather(*at_once, return_exceptions=True)

    answers = asyncio.run(guess())
    assert looked_up == [f"guess-{number}" for number in range(16)]
    assert answers[:2] == [None, None]
    assert [answer.status for answer in answers[2:]] == [429] * 97


def test_many_who_are_known_may_come_at_once(guesses: Rate) -> None:
    """From the one address of a proxy, too."""

    async def look(token: str) -> str:
        await asyncio.sleep(0)
        return token

    async def come() -> list[Any]:
        callers = Callers(Settings(users=look))
        return await asyncio.gather(*(callers.caller([bearer(f"u{number}")], guesses, "here") for number in range(99)))

    assert [caller.user_id for caller in asyncio.run(come())] == [f"u{number}" for number in range(99)]


def test_only_a_wrong_token_counts_as_a_guess(guesses: Rate) -> None:
    def look(token: str) -> str | None:
        if token == "away-token":
            raise OSError
        return {"good-token": "dave"}.get(token)

    async def ask() -> list[str]:
        callers, told = Callers(Settings(users=look)), []
        for token in ("good-token", "away-token", "bad-token"):
            for _ in range(4):
                try:
                    caller = await callers.caller([bearer(token)], guesses, "here")
                    told.append(caller.user_id if caller else "nobody")
                except Problem as problem:
                    told.append(str(problem.status))
        assert await callers.caller([], guesses, "here") is None
        return told

    assert asyncio.run(ask()) == ["dave"] * 4 + ["500"] * 4 + ["nobody"] * 2 + ["429"] * 2


def test_the_servers_own_token_beside_those_of_users() -> None:
    both = Settings(token="the-backend", users={"alices-token": "alice"})
    assert who(both, "the-backend") == "default_user"
    assert who(both, "the-backend", x_user_id="zo%C3%AB") == "zoë"
    assert who(both, "alices-token") == who(both, "alices-token", x_user_id="alice") == "alice"
    with pytest.raises(Problem, match="another user"):
        who(both, "alices-token", x_user_id="bob")
    assert who(Settings(), None, x_user_id="bob") == "bob"


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": 1e9},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"nbf": 9e9},
        {"aud": "others"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"key": "another-secret-of-more-than-thirty-two-characters"},
        {"algorithm": "HS512"},
        {"key": None, "algorithm": "none"},
    ],
)
def test_a_jwt_that_is_not_as_it_should_be_is_none(changed: dict[str, Any]) -> None:
    check = Settings(users=JWT(SECRET, audience="us", issuer="https://id.example"))
    right = {"aud": "us", "iss": "https://id.example"}
    assert who(check, signed(**right)) == "alice"
    assert who(check, signed(**right | changed)) is None
    assert who(check, signed(**right)[:-2]) is None
    assert who(check, "no-jwt-at-all") is None


def test_keys_of_an_identity_provider() -> None:
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    published = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "k1", "use": "sig"}
    import json

    class Provider(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"keys": [published]}).encode())

        def log_message(self, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Provider) as provider:
        serving = Thread(target=provider.serve_forever)
        serving.start()
        try:
            known = Settings(users=JWT(jwks_url=f"http://127.0.0.1:{provider.server_port}/keys"))
            assert who(known, signed(private, "RS256", {"kid": "k1"})) == "alice"
            assert who(known, signed(private, "RS256", {"kid": "k2"})) is None
        finally:
            provider.shutdown()
            serving.join()
    by_key = Settings(users=JWT(public.decode()))
    assert who(by_key, signed(private, "RS256")) == "alice"
    # the public key is no secret: what is signed with it must not count
    import base64
    import hmac

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    head = part(b'{"alg":"HS256","typ":"JWT"}') + "." + part(json.dumps({"sub": "alice", "exp": 9e9}).encode())
    forged = f"{head}.{part(hmac.digest(public, head.encode(), 'sha256'))}"
    assert who(by_key, forged) is None


def test_a_provider_that_is_away_makes_no_token_wrong() -> None:
    away = Settings(users=JWT(jwks_url=f"http://127.0.0.1:{free_port()}/keys"))
    with pytest.raises(Problem) as failed:
        who(away, signed(headers={"kid": "k1"}))
    assert (failed.value.status, failed.value.headers) == (503, {"Retry-After": "5"})


def test_a_file_of_users() -> None:
    assert read_users('{"alice": "alices-token", "bob": ["bobs-one-1", "bobs-two-2"]}') == {
        "alices-token": "alice",
        "bobs-one-1": "bob",
        "bobs-two-2": "bob",
    }
    for text, why in [
        ("", "JSON"),
        ("[]", "JSON"),
        ('{"alice": 5}', "JSON"),
        ('{"alice": "short"}', "8 ASCII"),
        ('{"alice": "one-token", "bob": "one-token"}', "one token"),
        ('{"": "one-token-1"}', "user ids"),
        ('{"alice": "sha256:xyz12345"}', "64 hex"),
    ]:
        with pytest.raises(ConfigError, match=why) as failed:
            read_users(text)
        assert "one-token" not in str(failed.value)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"token": "short"}, "8 ASCII"),
        ({"token": "with blanks in it"}, "8 ASCII"),
        ({"token": 12345678}, "text"),
        ({"users": ["alices-token"]}, "mapping"),
        ({"busy": "wait"}, "queue, reject, interrupt"),
        ({"max_turns": -1}, "from 0"),
        ({"max_turns": "many"}, "number"),
        ({"turn_timeout_s": float("nan")}, "from 0"),
        ({"hosts": "example.com"}, "list"),
        ({"origins": ["*"]}, r"such as \"https://app.example.com\", not '\*'"),
        ({"origins": ["https://*.example.com"]}, "such as"),
        ({"origins": ["app.example.com"]}, "such as"),
        ({"origins": ["null"]}, "such as"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as failed:
        Settings(**given)
    assert "with blanks" not in str(failed.value)


def test_a_setting_that_is_misspelt_is_told() -> None:
    from praisonaiagents.serve.settings import settings_from

    with pytest.raises(ConfigTypeError, match="did you mean per_minute"):
        settings_from({"per_minutes": 5})
    for arguments in ({}, {"key": SECRET, "jwks_url": "http://x"}, {"key": SECRET, "algorithms": ["none"]}):
        with pytest.raises(ConfigError):
            JWT(**arguments)
    assert SECRET not in repr(JWT(SECRET))
