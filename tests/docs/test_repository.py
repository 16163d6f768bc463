"""What is committed is free of this machine: no hosts of package registries, no paths; and the licence is Apache's."""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from .documents import ROOT, committed

APACHE_2_0 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of the text that the Apache Software Foundation publishes."""
_REGISTRY = re.compile(
    rb"--(?:extra-)?index-url|--trusted-host|https?://[^\s\"')]*\b(?:pypi|pythonhosted|npmjs|crates\.io)\b"
)
_PATHS = re.compile(rb"(?<![\w.])/" + rb"(?:work|root|home)/[a-z.]")


def text_files() -> list[Path]:
    return [path for path in committed() if b"\0" not in path.read_bytes()[:4096]]


def registry_hosts() -> set[bytes]:
    """The hosts that this machine is set up to fetch packages from."""
    addresses = [
        os.environ.get(name, "")
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX")
    ]
    for name in (
        Path("/etc/pip.conf"),
        Path.home() / ".pip" / "pip.conf",
        Path.home() / ".config" / "pip" / "pip.conf",
    ):
        parser = configparser.ConfigParser(interpolation=None)
        if name.is_file():
            parser.read(name)
            addresses += [
                value for section in parser.sections() for key, value in parser.items(section) if "url" in key
            ]
    hosts = (urlsplit(word).hostname for address in addresses for word in address.split())
    return {host.encode() for host in hosts if host}


def test_the_licence_is_apache_2_0() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_0
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"


def test_no_committed_file_names_a_host_of_a_package_registry() -> None:
    hosts = registry_hosts()
    for path in text_files():
        if path == Path(__file__):
            continue
        data = path.read_bytes()
        found = _REGISTRY.search(data)
        assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]!r}"
        assert not any(host in data for host in hosts), f"{path.relative_to(ROOT)} names this machine's registry"


def test_no_committed_file_names_a_folder_of_this_machine() -> None:
    here = str(ROOT).encode()
    for path in text_files():
        data = path.read_bytes()
        assert here not in data, path.relative_to(ROOT)
        found = _PATHS.search(data)
        assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]!r}"


def test_no_private_key_is_committed() -> None:
    key = re.compile(rb"PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")
    found = [path for path in committed() if key.search(path.read_bytes())]
    # Test vectors hold keys that were published with them.
    assert [path for path in found if "vectors" not in path.relative_to(ROOT).parts] == []
