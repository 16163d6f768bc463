"""The registry: networks by name, enclaves by name, and files that cannot be believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tea.parent_client.registry import (
    EnclaveEntry,
    NetworkEntry,
    Registry,
    RegistryError,
    default_registry,
    socket_folder,
)


def network(name: str = "net", *enclaves: str) -> NetworkEntry:
    return NetworkEntry(name, "test", None, tuple(EnclaveEntry(one, f"/x/{one}", 1, None) for one in enclaves))


def test_a_network_is_found_as_it_was_written(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    entry = network("net", "e1", "e2")
    registry.write(entry)
    assert registry.network("net") == entry
    assert registry.networks() == ["net"]
    assert registry.enclave("net", "e2").name == "e2"
    registry.forget("net")
    assert registry.networks() == []
    registry.forget("net")


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    with pytest.raises(RegistryError, match=r"no network net below .*: there are none; `teactl sim up` starts one"):
        registry.network("net")
    registry.write(network("other", "e1", "e2"))
    with pytest.raises(RegistryError, match="there are other"):
        registry.network("net")
    with pytest.raises(RegistryError, match="no enclave e9 in other: there are e1, e2"):
        registry.enclave("other", "e9")
    with pytest.raises(RegistryError, match="has 2 enclaves, expected one: name it with --enclave: e1, e2"):
        registry.enclave("other", None)


def test_the_only_enclave_needs_no_name(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.write(network("net", "e1"))
    assert registry.enclave("net", None).name == "e1"
    registry.write(network("net"))
    with pytest.raises(RegistryError, match="has 0 enclaves"):
        registry.enclave("net", None)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "ü", "x" * 64, "-a", "a\n"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="found the network's name"):
        Registry(tmp_path).network(name)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"name": 3}', b"[" * 100_000])
def test_a_file_that_is_no_network_is_refused_with_the_mend(tmp_path: Path, content: bytes) -> None:
    registry = Registry(tmp_path)
    path = registry.write(network())
    path.write_bytes(content)
    with pytest.raises(RegistryError, match=r"cannot be read: .*`teactl sim down` and `sim up` make it anew"):
        registry.network("net")


def test_a_network_in_a_folder_that_others_can_write_to_is_not_followed(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    path = registry.write(network())
    path.parent.chmod(0o777)
    with pytest.raises(RegistryError, match="others can write to the folder"):
        registry.network("net")


def test_the_registry_is_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEA_HOME", str(tmp_path / "there"))
    assert default_registry().folder == tmp_path / "there"
    monkeypatch.setenv("TEA_HOME", "")
    monkeypatch.chdir(tmp_path)
    assert default_registry().folder == tmp_path / ".tea"


def test_sockets_lie_in_the_clients_own_folder_however_long_its_path(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    assert socket_folder(folder) == folder
