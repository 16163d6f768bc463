"""Addresses: what is parsed, and what a place in the file system or on vsock allows."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.transport import Address, UnixAddress, VsockAddress


@pytest.mark.parametrize("text", ["unix:/run/tea/enclave.sock", "unix:relative.sock", "vsock:3:5000", "vsock:any:any"])
def test_an_address_prints_as_it_is_written(text: str) -> None:
    assert str(Address.parse(text)) == text


def test_both_families_are_parsed() -> None:
    assert Address.parse("unix:/a:b") == UnixAddress(Path("/a:b"))
    assert Address.parse("vsock:3:5000") == VsockAddress(3, 5000)
    assert Address.parse("vsock:any:1") == VsockAddress(0xFFFFFFFF, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix",
        "unix:",
        "unix:/a\0b",
        "vsock",
        "vsock:3",
        "vsock:3:",
        "vsock::5",
        "vsock:-1:5",
        "vsock:3:4294967296",
        "vsock:3:5:6",
        "vsock:3:٣",
        "vsock: 3:5",
        "tcp:127.0.0.1:80",
        "/run/tea.sock",
    ],
)
def test_what_is_no_address_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Address.parse(text)


@given(st.text())
def test_whatever_is_parsed_only_value_error_is_raised(text: str) -> None:
    try:
        assert str(Address.parse(text))
    except ValueError:
        pass


# -- Unix --------------------------------------------------------------------------------------------------------------


def test_the_socket_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    before = os.umask(0)
    try:
        with address.make_socket() as sock:
            address.bind(sock)
            assert stat.S_IMODE(address.path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    with address.make_socket() as dead:
        address.bind(dead)
    assert address.path.exists()
    with address.make_socket() as sock:
        address.bind(sock)
        sock.listen()
        with address.make_socket() as dialling:
            address.start_connect(dialling)


def test_a_place_where_somebody_listens_is_not_taken(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    with address.make_socket() as sock, address.make_socket() as second:
        address.bind(sock)
        sock.listen()
        with pytest.raises(FileExistsError, match="somebody listens"):
            address.bind(second)


def test_a_place_whose_listener_is_too_busy_to_answer_is_not_taken(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    with address.make_socket() as sock, address.make_socket() as second, address.make_socket() as waiting:
        address.bind(sock)
        sock.listen(0)
        address.start_connect(waiting)
        with pytest.raises(FileExistsError, match="somebody listens"):
            address.bind(second)


def test_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    address.path.write_text("precious")
    with address.make_socket() as sock, pytest.raises(FileExistsError, match="is no socket"):
        address.bind(sock)
    assert address.path.read_text() == "precious"


def test_a_path_longer_than_the_kernel_takes_works(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25) / ("longer" * 20)
    folder.mkdir(parents=True)
    address = UnixAddress(folder / "s")
    with address.make_socket() as sock, address.make_socket() as dialling:
        address.bind(sock)
        sock.listen()
        address.start_connect(dialling)
        address.unbind(sock)
    assert not address.path.exists()


def test_what_another_process_has_put_in_the_place_is_left_alone(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    with address.make_socket() as mine, address.make_socket() as others:
        address.bind(mine)
        address.path.unlink()
        address.bind(others)
        others.listen()
        address.unbind(mine)
        assert address.path.exists()


# -- vsock -------------------------------------------------------------------------------------------------------------


def test_a_vsock_port_can_be_bound_and_is_taken_then() -> None:
    address = Address.parse("vsock:any:any")
    with address.make_socket() as sock, address.make_socket() as second:
        assert sock.family == socket.AF_VSOCK
        bound = address.bind(sock)
        assert isinstance(bound, VsockAddress)
        assert bound.port != 0xFFFFFFFF
        sock.listen()
        with pytest.raises(OSError, match="in use"):
            bound.bind(second)
        bound.unbind(sock)
        assert sock.fileno() == -1


def test_a_vsock_address_of_another_machine_cannot_be_bound() -> None:
    address = VsockAddress(77, 5000)
    with address.make_socket() as sock, pytest.raises(OSError, match="assign requested address"):
        address.bind(sock)


def test_a_vsock_connect_does_not_block() -> None:
    address = VsockAddress(1, 1)
    with address.make_socket() as sock, pytest.raises(OSError, match=r"in progress|reset|refused|No such device"):
        address.start_connect(sock)
