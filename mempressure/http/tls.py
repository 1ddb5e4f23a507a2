"""TLS settings of a web configuration (`tls_server_config`), and the context and handshake made from them."""

import ipaddress
import os
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from mempressure.errors import WebConfigError

_VERSIONS = MappingProxyType({"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3})
_CLIENT_AUTH = MappingProxyType(
    {
        "NoClientCert": ssl.CERT_NONE,
        "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
        "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
    }
)
_UNCHECKED_AUTH = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
_TLS13_SUITES = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})
_SUITES = MappingProxyType(
    {
        f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
        for key in ("ECDSA", "RSA")
        for go, openssl in (
            ("AES_128_CBC_SHA", "AES128-SHA"),
            ("AES_256_CBC_SHA", "AES256-SHA"),
            ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
            ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
            ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        )
    }
)
"""OpenSSL's name of each cipher suite up to TLS 1.2, by Go's."""
_CURVES = MappingProxyType(
    {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """The values of `tls_server_config`, each valid and consistent with the others; names of files are absolute."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_auth_type: str = "NoClientCert"
    client_ca_file: str = ""
    client_allowed_sans: tuple[str, ...] = ()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True
    curve_preferences: tuple[str, ...] = ()

    @classmethod
    def of(cls, section: Mapping[str, Any], *, folder: str) -> "TLSSettings | None":
        """Return the settings of a section, or None where it is empty; file names in it are relative to `folder`.

        Raises:
            ValueError: a key is unknown, or a value cannot be used; the message names both.
        """
        if not section:
            return None
        known = {field.name: field.default for field in fields(cls)}
        values = {}
        for key, value in section.items():
            if key not in known:
                raise ValueError(f"tls_server_config.{key} is unknown; known are {', '.join(known)}")
            if value is not None:
                values[key] = _converted(key, value, known[key])
        for key in ("cert_file", "key_file", "client_ca_file"):
            if values.get(key):
                values[key] = os.path.join(folder, values[key])
        settings = cls(**values)
        settings.require_consistent()
        return settings

    @property
    def files(self) -> tuple[str, ...]:
        """Return the paths of the files that the settings name."""
        return tuple(path for path in (self.cert_file, self.key_file, self.client_ca_file) if path)

    def require_consistent(self) -> None:
        """Raise ValueError where values contradict each other, or ask for something that this server does not do."""
        for inline in ("cert", "key", "client_ca"):
            file, both = getattr(self, f"{inline}_file"), f"tls_server_config.{inline}_file"
            if file and getattr(self, inline):
                raise ValueError(f"{both}={file!r} contradicts tls_server_config.{inline}; send one of them")
            if inline != "client_ca" and not file and not getattr(self, inline):
                raise ValueError(f"{both} is missing; send the path of a PEM file")
        _require_one_of("min_version", self.min_version, _VERSIONS)
        _require_one_of("max_version", self.max_version, _VERSIONS)
        if self.min_version > self.max_version:
            raise ValueError(
                f"tls_server_config.min_version={self.min_version!r} is above max_version={self.max_version!r}; "
                "send a lower one"
            )
        for suite in self.cipher_suites:
            _require_one_of("cipher_suites", suite, (*_SUITES, *sorted(_TLS13_SUITES)))
        if self.cipher_suites and not self.ciphers and self.max_version == "TLS12":
            raise ValueError("tls_server_config.cipher_suites has none for max_version='TLS12'; send one of TLS 1.2")
        for curve in self.curve_preferences:
            _require_one_of("curve_preferences", curve, _CURVES)
        if len(self.curve_preferences) > 1:
            raise ValueError(
                f"tls_server_config.curve_preferences={', '.join(self.curve_preferences)} are more than Python's ssl "
                "can set; send one, or none for OpenSSL's own order"
            )
        self._require_consistent_client_auth()

    def _require_consistent_client_auth(self) -> None:
        auth = f"tls_server_config.client_auth_type={self.client_auth_type!r}"
        if self.client_auth_type in _UNCHECKED_AUTH:
            raise ValueError(
                f"{auth} takes any certificate unchecked; send RequireAndVerifyClientCert or VerifyClientCertIfGiven"
            )
        _require_one_of("client_auth_type", self.client_auth_type, _CLIENT_AUTH)
        asks, has_ca = self.client_auth_type != "NoClientCert", bool(self.client_ca or self.client_ca_file)
        if asks and not has_ca:
            raise ValueError(f"{auth} has no client_ca_file to check against; send one")
        if has_ca and not asks:
            raise ValueError(
                f"tls_server_config.client_ca_file={self.client_ca_file!r} has no effect with "
                f"client_auth_type={self.client_auth_type!r}; send client_auth_type: RequireAndVerifyClientCert"
            )
        if self.client_allowed_sans and not asks:
            raise ValueError(
                f"tls_server_config.client_allowed_sans has no effect with client_auth_type={self.client_auth_type!r}; "
                "send client_auth_type: RequireAndVerifyClientCert"
            )

    @property
    def ciphers(self) -> str:
        """Return the cipher suites up to TLS 1.2 as OpenSSL takes them: its names, joined by colons."""
        return ":".join(_SUITES[suite] for suite in self.cipher_suites if suite in _SUITES)


class TLS:
    """An SSL context with the configured certificate and authorities, and the check of clients' names.

    Args:
        settings: the web configuration's.

    Raises:
        ValueError: a file cannot be read or used; the message names it.
    """

    def __init__(self, settings: TLSSettings) -> None:
        self._allowed = frozenset(_normal(san) for san in settings.client_allowed_sans)
        context = self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Neither Python nor OpenSSL offers less than TLS 1.2; the suites of TLS 1.3 are all enabled, always.
        only_newest = settings.cipher_suites and not settings.ciphers
        context.minimum_version = _VERSIONS["TLS13" if only_newest else settings.min_version]
        context.maximum_version = _VERSIONS[settings.max_version]
        context.set_alpn_protocols(["http/1.1"])
        if settings.ciphers:
            context.set_ciphers(settings.ciphers)
        if not settings.prefer_server_cipher_suites:
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        for curve in settings.curve_preferences:
            _set_curve(context, curve)
        _load_certificate(context, settings)
        _load_authority(context, settings)
        context.verify_mode = _CLIENT_AUTH[settings.client_auth_type]

    def handshake(self, connection: ssl.SSLSocket, *, seconds: float) -> None:
        """Do the server's part of a handshake, within `seconds`.

        Raises:
            OSError: it failed or took too long, or the client's certificate has none of the allowed names.
        """
        connection.settimeout(seconds)
        connection.do_handshake()
        certificate = connection.getpeercert() if self._allowed else None
        if certificate:
            names = [str(entry[1]) for entry in certificate.get("subjectAltName", ())]
            if self._allowed.isdisjoint(map(_normal, names)):
                raise OSError(f"the client's certificate is for {', '.join(names)!r:.200}, which is not allowed")


def _converted(key: str, value: Any, default: Any) -> Any:
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise ValueError(f"tls_server_config.{key}={value!r:.60} cannot be used; send true or false")
    if isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return tuple(value)
        raise ValueError(f"tls_server_config.{key}={value!r:.60} cannot be used; send a list of texts")
    if isinstance(value, str):
        # An empty client_auth_type is the default's, as in the toolkit.
        return value or default
    shown = "" if key == "key" else f"={value!r:.60}"
    raise ValueError(f"tls_server_config.{key}{shown} cannot be used; send text")


def _require_one_of(key: str, value: str, known: Any) -> None:
    if value not in known:
        raise ValueError(f"tls_server_config.{key}={value!r:.60} cannot be used; send one of {', '.join(known)}")


def _set_curve(context: ssl.SSLContext, curve: str) -> None:
    try:
        context.set_ecdh_curve(_CURVES[curve])
    except ssl.SSLError as error:  # Python 3.11.2, Debian 12's, does not know X25519 by its name
        raise WebConfigError(
            f"curve_preferences: {curve} cannot be set with Python {sys.version.split()[0]} and {ssl.OPENSSL_VERSION}; "
            "leave it out, as OpenSSL prefers X25519 by itself, or send CurveP256"
        ) from error


def _load_certificate(context: ssl.SSLContext, settings: TLSSettings) -> None:
    with _as_file(settings.cert, settings.cert_file) as cert, _as_file(settings.key, settings.key_file) as key:
        for name, path in (("cert", cert), ("key", key)):
            _require_readable(f"tls_server_config.{name}_file", path)
        try:
            # Without a password given here, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(cert, key, password=lambda: b"")
        except ssl.SSLError as error:
            shown = f"{settings.cert_file or 'cert'!r} and key_file={settings.key_file or 'key'!r}"
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ValueError(f"tls_server_config.cert_file={shown} do not belong together") from None
            raise ValueError(
                f"tls_server_config.cert_file={shown} cannot be used: {error.reason or 'no PEM'}; send a certificate "
                "and its key in PEM, the key not encrypted"
            ) from None


def _load_authority(context: ssl.SSLContext, settings: TLSSettings) -> None:
    if settings.client_ca_file:
        _require_readable("tls_server_config.client_ca_file", settings.client_ca_file)
    try:
        if settings.client_ca_file:
            context.load_verify_locations(settings.client_ca_file)
        elif settings.client_ca:
            context.load_verify_locations(cadata=settings.client_ca)
    except ssl.SSLError as error:
        raise ValueError(
            f"tls_server_config.client_ca_file={settings.client_ca_file!r} cannot be used: {error.reason or 'no PEM'}; "
            "send certificates in PEM"
        ) from None


def _require_readable(key: str, path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise ValueError(f"{key}={path!r} cannot be read: {error.strerror}") from None


@contextmanager
def _as_file(text: str, path: str) -> Iterator[str]:
    """Yield a path for OpenSSL, which reads certificates from files only; an inline text becomes a file in memory."""
    if path:
        yield path
        return
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _normal(name: str) -> str:
    """Return a subject alternative name in the form that is compared: an IP address has several spellings."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name
