"""Where the runtime clients of this machine are found: a folder for each enclave, below one for its network.

May not: vouch for anything; a folder says where to ask, never what to believe. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from .files import private_folder, read_bytes, require_private, write_whole
from .refusal import Refusal

HOME_VARIABLE: Final = "TEA_HOME"
NETWORK_FILE: Final = "network.json"
MAX_NETWORK_FILE: Final = 1 << 20
OPERATOR_SOCKET: Final = "operator.sock"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class RegistryError(Refusal):
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
        """Where a network keeps its files. Raises `RegistryError` on a name that is no name of a folder."""
        if not _NAME.fullmatch(network):
            raise RegistryError(
                f"found the network's name {network[:80]!r}, expected letters, digits, '.', '_' and '-', a letter or "
                "digit first, at most 63: choose another"
            )
        return self.folder / "sim" / network

    def networks(self) -> list[str]:
        """Names of the networks that are written down."""
        return sorted(path.parent.name for path in (self.folder / "sim").glob(f"*/{NETWORK_FILE}"))

    def network(self, name: str) -> NetworkEntry:
        """One network. Raises `RegistryError`; for a folder that others can write to as well: they could name any
        process as a runtime client.
        """
        path = self.network_folder(name) / NETWORK_FILE
        try:
            require_private(path.parent)
            return msgspec.json.decode(read_bytes(path, "network's file", MAX_NETWORK_FILE), type=NetworkEntry)
        except FileNotFoundError:
            known = ", ".join(self.networks()) or "none"
            raise RegistryError(
                f"no network {name} below {self.folder}: there are {known}; `teactl sim up` starts one"
            ) from None
        except PermissionError as error:
            raise RegistryError(f"{error.filename}: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RegistryError(
                f"{path} cannot be read: {error}; `teactl sim down` and `sim up` make it anew"
            ) from None

    def write(self, network: NetworkEntry) -> Path:
        """Write a network down; the path."""
        path = private_folder(self.network_folder(network.name)) / NETWORK_FILE
        write_whole(path, msgspec.json.format(msgspec.json.encode(network)), 0o600)
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
            raise RegistryError(
                f"{network} has {len(enclaves)} enclaves, expected one: name it with --enclave: {_names(enclaves)}"
            )
        for one in enclaves:
            if one.name == name:
                return one
        raise RegistryError(f"no enclave {name} in {network}: there are {_names(enclaves)}")


def _names(enclaves: tuple[EnclaveEntry, ...]) -> str:
    return ", ".join(one.name for one in enclaves) or "none"


def default_registry() -> Registry:
    """Below `$TEA_HOME`, else below `.tea` in the working folder."""
    return Registry(Path(os.environ.get(HOME_VARIABLE) or ".tea").absolute())


def socket_folder(folder: Path) -> Path:
    """Where a client's sockets lie: its own folder, however long its path (`transport.address` shortens it)."""
    return folder.absolute()
