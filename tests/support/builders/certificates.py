"""Certificates of the tests' own authority, and web configurations that name them."""

import ssl
from pathlib import Path

import bcrypt
import trustme
import yaml

PASSWORD = "correct horse"  # noqa: S105 -- of the tests' own user
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")  # as htpasswd writes it


class Certificates:
    """An authority in `folder`, with a certificate of a server at 127.0.0.1 and one of the client "scraper"."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(folder / "ca.pem")
        self.renew()
        self.issue("client", "scraper")
        self.issue("stranger", "somebody.else")

    def renew(self) -> None:
        """Issue the server's certificate anew."""
        self.issue("server", "127.0.0.1", "localhost")

    def issue(self, name: str, *identities: str) -> None:
        """Write NAME.pem and NAME.key."""
        certificate = self._authority.issue_cert(*identities)
        certificate.cert_chain_pems[0].write_to_path(self.folder / f"{name}.pem")
        certificate.private_key_pem.write_to_path(self.folder / f"{name}.key")

    def write_config(self, *, users: bool = False, tls: bool = True, name: str = "web.yml", **options) -> Path:
        """Write a web configuration; `options` go into its `tls_server_config`."""
        content = {}
        if tls:
            content["tls_server_config"] = {"cert_file": "server.pem", "key_file": "server.key", **options}
        if users:
            content["basic_auth_users"] = {"prometheus": HASH}
        path = self.folder / name
        path.write_text(yaml.safe_dump(content))
        return path

    def client(self, certificate: str = "") -> ssl.SSLContext:
        """Return a client's context that trusts the authority, with a certificate of its own where one is named."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if certificate:
            context.load_cert_chain(self.folder / f"{certificate}.pem", self.folder / f"{certificate}.key")
        return context
