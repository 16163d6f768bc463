"""What signs, for real: SoftHSM2 with a fresh token, and moto's KMS server on a loopback port.

Rule: docs/secrets.md, "Keys". Both skip with the command that installs them.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
MOTO = "moto[server]==5.2.5"
ROOT = Path(__file__).resolve().parents[3]


class Token(NamedTuple):
    """A token with a P-384 key `approver`, a P-256 key `small`, an AES key `vault`."""

    module: str
    pin_file: Path

    def uri(self, label: str) -> str:
        return f"pkcs11:token=tea-test;object={label}?module-path={self.module}&pin-source={self.pin_file}"


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    """SoftHSM2 in a folder of its own."""
    module = next((path for path in MODULES if Path(path).is_file()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM2 is not installed: apt-get install softhsm2")
    pkcs11 = pytest.importorskip("pkcs11", reason="pip install 'tea-runtime[hsm]'")
    folder = tmp_path_factory.mktemp("hsm")
    (folder / "tokens").mkdir()
    config = folder / "softhsm.conf"
    config.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(config)
    initialise = ["softhsm2-util", "--init-token", "--free", "--label", "tea-test", "--pin", "4321", "--so-pin", "8765"]
    subprocess.run(initialise, check=True, capture_output=True)
    pin = folder / "pin"
    pin.write_text("4321\n")
    pin.chmod(0o600)
    from pkcs11.util.ec import encode_named_curve_parameters

    with pkcs11.lib(module).get_token(token_label="tea-test").open(user_pin="4321", rw=True) as session:
        for label, curve in (("approver", "secp384r1"), ("small", "secp256r1")):
            parameters = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
            domain = session.create_domain_parameters(pkcs11.KeyType.EC, parameters, local=True)
            domain.generate_keypair(store=True, label=label)
        session.generate_key(pkcs11.KeyType.AES, 256, store=True, label="vault")
    yield Token(module, pin)
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


def moto_server() -> str | None:
    """moto's server: on the path, or in `build/moto`, an environment of its own (it brings fifty packages)."""
    own = ROOT / "build" / "moto" / "bin" / "moto_server"
    return str(own) if own.is_file() else shutil.which("moto_server")


@pytest.fixture(scope="session")
def kms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of moto's KMS."""
    command = moto_server()
    if command is None:
        pytest.skip(f"moto is not installed: python3 -m venv build/moto && build/moto/bin/pip install '{MOTO}'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path_factory.mktemp("moto") / "console").open("wb") as console:
        process = subprocess.Popen([command, "-H", "127.0.0.1", "-p", str(port)], stdout=console, stderr=console)
    try:
        _wait(f"http://127.0.0.1:{port}/moto-api/", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError("moto's server did not come up")


@pytest.fixture
def aws(kms: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """moto's KMS, and credentials that it takes."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret-value")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    return kms
