import os
import shutil
import ssl

import pytest
import yaml

from mempressure.errors import WebConfigError
from mempressure.http import config
from mempressure.http.config import WebConfig, load
from tests.support.builders.certificates import HASH, Certificates

TLS = {"cert_file": "server.pem", "key_file": "server.key"}
CA = {"client_ca_file": "ca.pem"}


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("issued"))


@pytest.fixture
def folder(issued, tmp_path):
    """A folder of its own with the certificates."""
    shutil.copytree(issued.folder, tmp_path / "web")
    return tmp_path / "web"


@pytest.fixture
def write(folder):
    """Write `web.yml`, from text or content, and return its path."""

    def write(content):
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        new = folder / "web.yml.new"
        new.write_text(text)
        os.replace(new, folder / "web.yml")
        return str(folder / "web.yml")

    return write


def test_an_empty_file_asks_for_nothing(write):
    assert load(write("# nothing\n"))[:4] == (None, None, (), None)
    assert load(write("tls_server_config:\nhttp_server_config: {}\nbasic_auth_users: {}\n"))[:4] == (
        None,
        None,
        (),
        None,
    )


@pytest.mark.parametrize(
    "section",
    [
        TLS,
        TLS | {"min_version": "TLS13"},
        TLS | {"max_version": "TLS12", "cipher_suites": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]},
        TLS | {"cipher_suites": ["TLS_AES_128_GCM_SHA256"], "prefer_server_cipher_suites": False},
        TLS | {"curve_preferences": ["CurveP256"], "client_auth_type": ""},
        TLS | CA | {"client_auth_type": "RequireAndVerifyClientCert", "client_allowed_sans": ["scraper", "::1"]},
        TLS | CA | {"client_auth_type": "VerifyClientCertIfGiven"},
        TLS | {"client_auth_type": "NoClientCert", "client_allowed_sans": []},
    ],
)
def test_what_the_toolkit_takes_is_taken(write, section):
    assert load(write({"tls_server_config": section})).tls is not None


def test_x25519_is_set_where_this_python_knows_it_and_else_refused_by_name(write):
    file = write({"tls_server_config": TLS | {"curve_preferences": ["X25519"]}})
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve("X25519")
    except ssl.SSLError:
        with pytest.raises(WebConfigError, match="curve_preferences: X25519 cannot be set with Python 3"):
            load(file)
    else:
        assert load(file).tls is not None


def test_certificates_may_be_in_the_file_itself(write, folder):
    names = (("cert", "server.pem"), ("key", "server.key"), ("client_ca", "ca.pem"))
    inline = {name: (folder / file).read_text() for name, file in names}
    section = inline | {"client_auth_type": "RequireAndVerifyClientCert"}
    path = write({"tls_server_config": section})
    for _, file in names:
        (folder / file).unlink()
    loaded = load(path)
    assert loaded.tls is not None
    assert list(loaded.read) == [path]


def test_headers_users_and_a_rate_limit(write):
    loaded = load(
        write(
            {
                "http_server_config": {"http2": True, "headers": {"X-Frame-Options": "sameorigin"}},
                "basic_auth_users": {"prometheus": HASH},
                "rate_limit": {"interval": "1s", "burst": 20},
            }
        )
    )
    assert loaded.headers == (("X-Frame-Options", "sameorigin"),)
    assert loaded.users is not None
    assert loaded.rate is not None
    assert load(write({"rate_limit": {"interval": 0, "burst": 0}})).rate is None


def tls(words, **changes):
    return pytest.param({"tls_server_config": {k: v for k, v in (TLS | changes).items() if v != "gone"}}, words)


def section(name, content, *words):
    return pytest.param({name: content}, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("- a list\n", ["holds a list", "tls_server_config"], id="list"),
        pytest.param("a: [b\n", ["is no YAML", "line 2"], id="no YAML"),
        pytest.param("\x00", ["is no YAML"], id="NUL"),
        pytest.param("basic_auth_users:\n  a: x\n  a: y\n", ["'a' appears twice", "line 3"], id="twice"),
        section("tls_config", {}, "'tls_config' is unknown", "known are tls_server_config"),
        section("tls_server_config", ["x"], "tls_server_config holds a list"),
        tls(["tls_server_config.certfile is unknown", "cert_file"], certfile="x"),
        tls(["tls_server_config.cert_file is missing"], cert_file="gone"),
        tls(["tls_server_config.key_file is missing"], key_file="gone"),
        tls(["tls_server_config.cert_file='", "server.pem' contradicts tls_server_config.cert;"], cert="PEM"),
        tls(["cert_file=", "/nowhere.pem' cannot be read: No such file"], cert_file="nowhere.pem"),
        tls(["key_file=", "cannot be read: Is a directory"], key_file="."),
        tls(["do not belong together", "server.pem", "client.key"], key_file="client.key"),
        tls(["cannot be used", "web.yml", "in PEM"], cert_file="web.yml"),
        tls(["tls_server_config.min_version='TLS10' cannot be used; send one of TLS12, TLS13"], min_version="TLS10"),
        tls(["min_version='TLS13' is above max_version='TLS12'"], min_version="TLS13", max_version="TLS12"),
        tls(["cipher_suites='RC4' cannot be used"], cipher_suites=["RC4"]),
        tls(["cipher_suites='TLS_AES' cannot be used; send a list"], cipher_suites="TLS_AES"),
        tls(["cipher_suites has none for max"], cipher_suites=["TLS_AES_128_GCM_SHA256"], max_version="TLS12"),
        tls(["prefer_server_cipher_suites='yes' cannot be used"], prefer_server_cipher_suites="yes"),
        tls(["curve_preferences='P-256' cannot be used"], curve_preferences=["P-256"]),
        tls(["curve_preferences=X25519, CurveP256 are more"], curve_preferences=["X25519", "CurveP256"]),
        tls(["client_auth_type='Always' cannot be used"], client_auth_type="Always"),
        tls(["takes any certificate unchecked", "RequireAndVerifyClientCert"], client_auth_type="RequireAnyClientCert"),
        tls(["'RequireAndVerifyClientCert' has no client_ca_file"], client_auth_type="RequireAndVerifyClientCert"),
        tls(["client_ca_file=", "has no effect", "'NoClientCert'"], client_ca_file="ca.pem"),
        tls(["client_allowed_sans has no effect"], client_allowed_sans=["scraper"]),
        tls(
            ["client_ca_file=", "cannot be used"],
            client_ca_file="server.key",
            client_auth_type="VerifyClientCertIfGiven",
        ),
        tls(["tls_server_config.min_version=12 cannot be used; send text"], min_version=12),
        section("http_server_config", {"http3": True}, "http_server_config.http3 is unknown"),
        section("http_server_config", {"http2": "yes"}, "http_server_config.http2='yes'"),
        section("http_server_config", {"headers": {"X-Own": "1"}}, "headers.X-Own is unknown"),
        section("http_server_config", {"headers": {"X-Frame-Options": "maybe"}}, "'maybe'", "deny or sameorigin"),
        section("http_server_config", {"headers": {"X-XSS-Protection": "1\r\nA: b"}}, "X-XSS-Protection", "printable"),
        section("basic_auth_users", {"ann": "secret-word"}, "basic_auth_users.ann is no bcrypt hash"),
        section("basic_auth_users", {"ann": HASH.replace("$04$", "$31$")}, "cost 4 to 18"),
        section("basic_auth_users", {"a:b": HASH}, "'a:b' cannot be a user's name"),
        section("basic_auth_users", {7: HASH}, "7 cannot be a user's name"),
        section("rate_limit", {"interval": "soon"}, "rate_limit.interval='soon'"),
        section("rate_limit", {"interval": "1s"}, "rate_limit.burst=0 lets no request pass"),
        section("rate_limit", {"interval": "1s", "burst": -1}, "rate_limit.burst=-1"),
        section("rate_limit", {"every": "1s"}, "rate_limit.every is unknown"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line_with_the_file_and_without_secrets(write, content, words):
    path = write(content)
    with pytest.raises(WebConfigError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(path)
    assert len(message.splitlines()) == 1
    assert "secret-word" not in message
    assert HASH[7:] not in message
    for word in words:
        assert word in message


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WebConfigError, match=r"none\.yml cannot be read: No such file"):
        load(str(tmp_path / "none.yml"))


def test_an_encrypted_key_is_refused_instead_of_asking_for_its_password(write, folder):
    from cryptography.hazmat.primitives import serialization  # a dependency of trustme

    key = serialization.load_pem_private_key((folder / "server.key").read_bytes(), None)
    algorithm = serialization.BestAvailableEncryption(b"password")
    encrypted = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, algorithm)
    (folder / "server.key").write_bytes(encrypted)
    with pytest.raises(WebConfigError, match="the key not encrypted"):
        load(write({"tls_server_config": TLS}))


class Watched:
    """A configuration and the errors that it reported."""

    def __init__(self, path):
        self.errors = []
        self.config = WebConfig(path, on_error=self.errors.append)


def test_what_is_changed_holds_at_once(write):
    watched = Watched(write({"basic_auth_users": {"ann": HASH}}))
    first = watched.config.current()
    assert watched.config.current() is first
    write({"basic_auth_users": {"bob": HASH}})
    assert watched.config.current().users.accept("bob", "correct horse")
    assert not watched.config.current().users.accept("ann", "correct horse")


def test_a_new_certificate_is_taken_without_a_change_of_the_file(write, folder, issued):
    watched = Watched(write({"tls_server_config": TLS}))
    before = watched.config.current().tls.context
    shutil.copy(folder / "client.pem", folder / "server.pem")
    assert watched.config.current().tls.context is before  # the key is the old one's still
    assert "do not belong together" in str(watched.errors[0])
    shutil.copy(folder / "client.key", folder / "server.key")
    assert watched.config.current().tls.context is not before
    assert len(watched.errors) == 1


def test_what_cannot_be_used_is_told_once_and_the_old_version_holds(write, caplog):
    watched = Watched(write({"basic_auth_users": {"ann": HASH}}))
    for text in ("nonsense: 1\n", "nonsense: 1  # still\n"):
        write(text)
        for _ in range(3):
            assert watched.config.current().users.accept("ann", "correct horse")
    assert caplog.text.count("'nonsense' is unknown") == len(watched.errors) == 1
    write({"basic_auth_users": {"bob": HASH}})
    assert watched.config.current().users.accept("bob", "correct horse")


def test_a_file_that_vanished_leaves_what_held(write, folder):
    watched = Watched(write({"basic_auth_users": {"ann": HASH}}))
    (folder / "web.yml").unlink()
    assert watched.config.current().users is not None
    assert "No such file" in str(watched.errors[0])


def test_what_was_named_and_not_there_is_tried_again_by_and_by(write, folder, monkeypatch):
    watched = Watched(write({"tls_server_config": TLS}))
    write({"tls_server_config": TLS | {"cert_file": "new.pem", "key_file": "new.key"}})
    watched.config.current()
    shutil.copy(folder / "client.pem", folder / "new.pem")
    shutil.copy(folder / "client.key", folder / "new.key")
    watched.config.current()
    assert "new.pem" in str(watched.errors[0])
    monkeypatch.setattr(config.time, "monotonic", lambda: 1e12)
    assert str(folder / "new.pem") in watched.config.current().read


@pytest.mark.parametrize(("before", "after"), [({}, {"tls_server_config": TLS}), ({"tls_server_config": TLS}, {})])
def test_tls_is_neither_added_nor_removed_without_a_restart(write, before, after):
    watched = Watched(write(before))
    write(after)
    assert (watched.config.current().tls is None) == (before == {})
    assert "restart for that" in str(watched.errors[0])


@pytest.mark.parametrize("text", ["", "basic_auth_users:\n", "rate_limit: {}\n"])
def test_a_file_that_is_just_being_written_lets_nobody_in(write, text):
    watched = Watched(write({"basic_auth_users": {"ann": HASH}}))
    write(text)
    assert watched.config.current().users.accept("ann", "correct horse")
    assert "basic_auth_users was removed: authentication would be off; restart for that" in str(watched.errors[0])
    write({"basic_auth_users": {"bob": HASH}})
    assert watched.config.current().users.accept("bob", "correct horse")
    assert not watched.config.current().users.accept("ann", "correct horse")
