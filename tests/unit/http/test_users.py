import base64
import threading

import bcrypt
import pytest

from mempressure.http import users as users_module
from mempressure.http.messages import Headers, Request, Response
from mempressure.http.users import MAX_WAITING, BusyError, Users, basic_credentials, users_only
from tests.support.builders.certificates import HASH, PASSWORD
from tests.support.waiting import until


@pytest.fixture
def checks(monkeypatch):
    """Count bcrypt's checks, with the hashes that they were made against."""
    made = []
    real = bcrypt.checkpw

    def checked(password, hashed):
        made.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(users_module.bcrypt, "checkpw", checked)
    return made


def test_a_password_is_checked_once_and_a_wrong_one_each_time(checks):
    users = Users({"ann": HASH})
    assert [users.accept("ann", PASSWORD) for _ in range(3)] == [True] * 3
    assert len(checks) == 1
    assert [users.accept("ann", "wrong") for _ in range(3)] == [False] * 3
    assert len(checks) == 4
    assert users.accept("ann", PASSWORD)
    assert len(checks) == 4


def test_a_remembered_password_is_that_users_alone(checks):
    users = Users({"ann": HASH, "bob": bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()})
    assert users.accept("ann", PASSWORD)
    assert not users.accept("bob", PASSWORD)


def test_an_unknown_user_costs_a_check_even_with_somebodys_password(checks):
    users = Users({"ann": HASH})
    assert not users.accept("nobody", PASSWORD)
    assert not users.accept("nobody", PASSWORD)
    assert checks == [HASH.encode()] * 2


def test_what_is_remembered_is_one_password_a_user():
    users = Users({"ann": HASH})
    for number in range(5):
        users.accept("ann", f"wrong {number}")
        users.accept(f"nobody {number}", PASSWORD)
    users.accept("ann", PASSWORD)
    assert list(users._verified) == ["ann"]
    assert PASSWORD.encode() not in users._verified["ann"]


@pytest.mark.parametrize("password", ["", "a\0b", "\ud800", "x" * 100_000])
def test_strange_passwords_are_wrong(password):
    assert not Users({"ann": HASH}).accept("ann", password)


def test_bcrypt_looks_at_72_bytes_as_in_the_toolkit():
    users = Users({"ann": bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()})
    assert users.accept("ann", "x" * 80)
    assert not users.accept("ann", "x" * 71)


def test_guesses_keep_nobody_out_whose_password_is_remembered(monkeypatch):
    users = Users({"ann": HASH})
    assert users.accept("ann", PASSWORD)
    release = threading.Event()
    monkeypatch.setattr(users_module.bcrypt, "checkpw", lambda *_: not release.wait(10))
    guessing = [threading.Thread(target=users.accept, args=("ann", str(number))) for number in range(MAX_WAITING)]
    for thread in guessing:
        thread.start()
    try:
        until(lambda: users._waiting._value == 0, "the guesses to wait")
        assert users.accept("ann", PASSWORD)
        with pytest.raises(BusyError):
            users.accept("ann", "one more")
    finally:
        release.set()
        for thread in guessing:
            thread.join(10)


def encoded(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (encoded("ann:secret"), ("ann", "secret")),
        (encoded("ann:se:cr:et"), ("ann", "se:cr:et")),
        (encoded("ann:").replace("Basic", "bAsIc"), ("ann", "")),
        (encoded("änn:ü"), ("änn", "ü")),
        (encoded("ann"), None),
        ("Basic", None),
        ("Basic !!!", None),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(), None),
        ("Bearer " + encoded("ann:secret")[6:], None),
        ("", None),
    ],
)
def test_credentials_of_a_header(header, found):
    assert basic_credentials(header) == found


def test_pages_for_users_only():
    answer = users_only(lambda _: Response(200, "text/plain", b"in"), lambda: allowed)

    def status(header=None):
        headers = Headers([("Authorization", header)] if header else [])
        return answer(Request("GET", "/", "", headers))

    allowed = None
    assert status().status == 200
    allowed = Users({"ann": HASH})
    refused = status()
    assert (refused.status, dict(refused.headers)["WWW-Authenticate"].split()[0]) == (401, "Basic")
    assert status(encoded("ann:wrong")).status == 401
    assert status(encoded(f"ann:{PASSWORD}")).status == 200
