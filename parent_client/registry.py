"""Where the runtime clients of this machine are found: a folder for each enclave, below one for its network.

May not: vouch for anything; a folder says where to ask, never what to believe. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

HOME_VARIABLE: Final = "TEA_HOME"
NETWORK_FILE: Final = "network.json"
MAX_SOCKET_PATH: Final = 100
"""Characters of a Unix socket's path that every system takes (Linux 107, others fewer)."""
LONGEST_SOCKET: Final = "operator.sock"


class RegistryError(Exception):
    """What was named is not there; the sentence says what is."""


class EnclaveEntry(msgspec.Struct, frozen=True):
    """One enclave of a network and the processes that serve it."""

    name: str
    folder: str
    client_pid: int
    host_pid: int | None
    instance_id: str | None = None


class NetworkEntry(msgspec.Struct, frozen=True):
    """One network as `sim up` wrote it down."""

    name: str
    deployment: str
    root: str | None
    """`sha256:<hex>` of the simulated root; None for real enclaves."""
    enclaves: tuple[EnclaveEntry, ...]


@dataclass(frozen=True)
class Registry:
    """The networks below one folder."""

    folder: Path

    def network_folder(self, network: str) -> Path:
        """Where a network keeps its files."""
        return self.folder / "sim" / network

    def networks(self) -> list[str]:
        """Names of the networks that are written down."""
        return sorted(path.parent.name for path in (self.folder / "sim").glob(f"*/{NETWORK_FILE}"))

    def network(self, name: str) -> NetworkEntry:
        """One network. Raises `RegistryError`."""
        path = self.network_folder(name) / NETWORK_FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=NetworkEntry)
        except FileNotFoundError:
            known = ", ".join(self.networks()) or "none"
            raise RegistryError(
                f"no network {name} below {self.folder}: there are {known}; `teactl sim up` starts one"
            ) from None
        except msgspec.DecodeError as error:
            raise RegistryError(
                f"{path} cannot be read: {error}; `teactl sim down` and `sim up` make it anew"
            ) from None

    def write(self, network: NetworkEntry) -> Path:
        """Write a network down; the path."""
        path = self.network_folder(network.name) / NETWORK_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(network)))
        temporary.replace(path)
        return path

    def forget(self, name: str) -> None:
        """Take a network off the books; its files stay."""
        (self.network_folder(name) / NETWORK_FILE).unlink(missing_ok=True)

    def enclave(self, network: str, name: str | None) -> EnclaveEntry:
        """One enclave; None: the only one. Raises `RegistryError`."""
        enclaves = self.network(network).enclaves
        if name is None:
            if len(enclaves) == 1:
                return enclaves[0]
            raise RegistryError(f"name an enclave with --enclave: {', '.join(one.name for one in enclaves)}")
        for one in enclaves:
            if one.name == name:
                return one
        raise RegistryError(f"no enclave {name} in {network}: there are {', '.join(one.name for one in enclaves)}")


def default_registry() -> Registry:
    """Below `$TEA_HOME`, else below `.tea` in the working folder."""
    return Registry(Path(os.environ.get(HOME_VARIABLE, ".tea")).absolute())


def socket_folder(folder: Path) -> Path:
    """Where a client's sockets lie: its folder, or a short one of its own when the path is too long for a socket."""
    folder = folder.absolute()
    if len(str(folder / LONGEST_SOCKET)) <= MAX_SOCKET_PATH:
        return folder
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tea-{os.getuid()}" / name
