"""What an image is made of: locks, packages, wheels, kernels, libraries; and every way in which one is not the one."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tea.enclave_image.assembly import debian, wheels
from tea.enclave_image.assembly.cache import Cache
from tea.enclave_image.assembly.elf import keep_needed_libraries, needed
from tea.enclave_image.assembly.platforms import kernel_version, nitro_files
from tea.enclave_image.assembly.tree import Tree
from tea.enclave_image.eif.codes import ImageCode, ImageError


def package(path: Path, files: dict[str, bytes], *, data: str = "data.tar.xz", magic: bytes = b"!<arch>\n") -> Path:
    """A Debian package with these files."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:xz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    body = magic
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (data, archive.getvalue())):
        body += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        body += b"\n" * (len(content) % 2)
    path.write_bytes(body)
    return path


# ---- packages --------------------------------------------------------------------------------------------------------


def test_a_package_is_read_without_dpkg(tmp_path: Path) -> None:
    path = package(tmp_path / "a.deb", {"usr/bin/a": b"program", "usr/share/doc/a": b"text"})
    read = {member.name: content.read() for member, content in debian.members(path) if content}
    assert read == {"usr/bin/a": b"program", "usr/share/doc/a": b"text"}


@pytest.mark.parametrize(
    ("data", "magic"), [("data.tar.xz", b"no ar!!\n"), ("other", b"!<arch>\n"), ("data.tar.zst", b"!<arch>\n")]
)
def test_what_is_no_package_of_ours_is_refused(tmp_path: Path, data: str, magic: bytes) -> None:
    path = package(tmp_path / "a.deb", {}, data=data, magic=magic)
    with pytest.raises(ImageError) as refused:
        list(debian.members(path))
    assert refused.value.code is ImageCode.PACKAGE


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path / "a.deb", {"a": b"x"})
    path.write_bytes(path.read_bytes()[:-60] + bytes(60))
    with pytest.raises((ImageError, Exception)) as refused:
        list(debian.members(path))
    assert isinstance(refused.value, ImageError)


def test_the_lock_is_read_and_written(tmp_path: Path) -> None:
    locked = debian.read_lock()
    assert {one.name for one in locked} >= set(debian.ROOT_PACKAGES)
    assert sum(one.is_kernel for one in locked) == 1
    debian.write_lock(locked, tmp_path / "lock")
    assert debian.read_lock(tmp_path / "lock") == locked


@pytest.mark.parametrize("line", ["libc6", "libc6 2.36", "libc6 2.36 sha256:00", "libc6 2.36 md5:" + "0" * 64])
def test_a_lock_without_a_hash_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "lock").write_text(f"# comment\n{line}\n")
    with pytest.raises(ImageError, match=":2: expected NAME VERSION sha256:HEX"):
        debian.read_lock(tmp_path / "lock")


def test_the_cache_answers_by_hash_and_drops_what_is_damaged(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    digest = hashlib.sha256(b"content").hexdigest()
    (tmp_path / "a.deb").write_bytes(b"content")
    assert cache.find(digest, "a.deb") is None
    kept = cache.keep(tmp_path / "a.deb", digest)
    assert cache.find(digest, "a.deb") == kept
    kept.write_bytes(b"changed")
    assert cache.find(digest, "a.deb") is None


def test_a_package_of_another_hash_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(b"other")
    with pytest.raises(ImageError) as refused:
        Cache(tmp_path / "cache").keep(tmp_path / "a.deb", "00" * 32)
    assert refused.value.code is ImageCode.PACKAGE


def test_a_cached_package_needs_no_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")
    path = package(tmp_path / "one.deb", {})
    one = debian.Package("one", "1.0", hashlib.sha256(path.read_bytes()).hexdigest())
    cache.keep(path, one.digest)
    monkeypatch.setenv("PATH", "/nowhere")
    assert debian.fetch(one, cache).name == "one.deb"


def test_a_package_that_is_not_to_be_had_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageError, match="teactl image lock"):
        debian.fetch(debian.Package("one", "1.0", "00" * 32), Cache(tmp_path))


# ---- wheels ----------------------------------------------------------------------------------------------------------


def wheel(path: Path, files: dict[str, bytes]) -> wheels.Wheel:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return wheels.Wheel(path, "one", "1.0", "00" * 32, "MIT")


def test_a_wheel_is_unpacked_without_what_an_enclave_does_not_run(tmp_path: Path) -> None:
    wanted = ["one/__init__.py", "one/native.so", "one-1.0.dist-info/METADATA", "one-1.0.data/purelib/extra.py"]
    unwanted = ["one/tests/test_a.py", "one/SelfTest/a.py", "one/a.pyi", "one/a.c"]
    unwanted += ["one-1.0.dist-info/RECORD", "one-1.0.data/scripts/run"]
    files = dict.fromkeys([*wanted, *unwanted], b"x")
    tree = Tree()
    wheels.install([wheel(tmp_path / "one.whl", files)], tmp_path / "staging", "site", tree)
    installed = [path for path, entry in tree.items() if entry.is_file]
    assert installed == [
        "site/extra.py", "site/one-1.0.dist-info/METADATA", "site/one/__init__.py", "site/one/native.so",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "one/../../up.py"])
def test_a_wheel_that_reaches_outside_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError) as refused:
        wheels.install([wheel(tmp_path / "one.whl", {name: b""})], tmp_path / "staging", "site", Tree())
    assert refused.value.code is ImageCode.PACKAGE
    assert not (tmp_path / "up.py").exists()


def test_a_damaged_wheel_in_the_cache_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("one==1.0 --hash=sha256:00\n")
    folder = tmp_path / "cache" / hashlib.sha256(lock.read_bytes()).hexdigest()
    folder.mkdir(parents=True)
    (folder / "one.whl").write_bytes(b"changed")
    (folder / "wheels.sha256").write_text(f"one.whl {'00' * 32} {'00' * 32}\n")
    with pytest.raises(ImageError) as refused:
        wheels.fetch(lock, tmp_path / "cache")
    assert refused.value.code is ImageCode.PACKAGE


# ---- programs and kernels --------------------------------------------------------------------------------------------


def test_needed_libraries_are_read_off_a_real_program() -> None:
    program = Path(sys.executable).resolve().read_bytes()
    assert any(name.startswith(("libc.so", "libpython")) for name in needed(program))
    assert needed(b"#!/bin/sh\n") == ()


def test_a_malformed_program_is_refused() -> None:
    program = Path(sys.executable).resolve().read_bytes()
    for size in (10, 40, 60, 200):
        with pytest.raises(ImageError):
            needed(program[:size])


def test_libraries_that_nobody_needs_go_and_missing_ones_are_an_error() -> None:
    program = Path(sys.executable).resolve()
    names = needed(program.read_bytes())
    tree = Tree()
    tree.add_file("bin/python", program)
    for name in (*names, "libunused.so.1"):
        tree.add_file(f"lib/{name}", b"")
    keep_needed_libraries(tree, "lib")
    assert {path for path, entry in tree.items() if entry.is_file} == {"bin/python", *(f"lib/{name}" for name in names)}
    tree.remove(f"lib/{names[0]}")
    with pytest.raises(ImageError, match=names[0].replace("+", r"\+")):
        keep_needed_libraries(tree, "lib")


def bzimage(version: str = "6.1.0-test (builder) #1") -> bytes:
    start = bytearray(0x400)
    start[0x1FE:0x200] = b"\x55\xaa"
    start[0x202:0x206] = b"HdrS"
    start[0x20E:0x210] = (0x100).to_bytes(2, "little")
    start[0x300 : 0x300 + len(version)] = version.encode()
    return bytes(start)


def test_a_kernel_says_its_version_and_nothing_else_is_one(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(bzimage())
    assert kernel_version(tmp_path / "kernel") == "6.1.0-test"
    for bad in (b"", b"MZ" * 400, bzimage()[:0x200]):
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(ImageError) as refused:
            kernel_version(tmp_path / "bad")
        assert refused.value.code is ImageCode.INPUT


def test_nitro_says_where_its_kernel_would_come_from(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(bzimage())
    with pytest.raises(ImageError, match="--kernel"):
        nitro_files(tmp_path / "none", tmp_path / "none")
    with pytest.raises(ImageError, match="--nsm-module"):
        nitro_files(tmp_path / "kernel", tmp_path / "none")
    (tmp_path / "nsm.ko").write_bytes(b"module")
    files = nitro_files(tmp_path / "kernel", tmp_path / "nsm.ko")
    assert "tea.mode=nitro" in files.cmdline.split()
    assert [name for name, _ in files.modules] == ["nsm.ko"]
    (tmp_path / "kernel").write_bytes(bzimage("4.14.256-209.484.amzn2.x86_64 #1"))
    with pytest.raises(ImageError, match="pidfd"):
        nitro_files(tmp_path / "kernel", tmp_path / "nsm.ko")
