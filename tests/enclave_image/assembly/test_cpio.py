"""Ramdisks: what the kernel would unpack, and the same bytes from the same tree."""

from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path

import pytest

from tea.enclave_image.assembly.cpio import write_ramdisk
from tea.enclave_image.assembly.tree import Tree
from tea.enclave_image.eif.codes import ImageCode, ImageError


def unpack(data: bytes) -> dict[str, tuple[int, bytes]]:
    """A newc archive, read independently: path to (mode, content)."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        _, mode, uid, gid, _, mtime, size, *_, length, _ = fields
        assert (uid, gid, mtime) == (0, 0, 0)
        name = data[at + 110 : at + 110 + length - 1].decode()
        at += (110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        found[name] = (mode, data[at : at + size])
        at += (size + 3) // 4 * 4


def some_tree(folder: Path) -> Tree:
    tree = Tree()
    (folder / "large").write_bytes(os.urandom(3 << 20))
    tree.add_file("usr/bin/program", folder / "large", executable=True)
    tree.add_file("etc/a", b"text")
    tree.add_file("start", b"secret", mode=0o400)
    tree.add_link("bin", "usr/bin")
    tree.add_folder("tmp", 0o1777)
    return tree


def test_an_archive_holds_the_tree_with_our_owners_modes_and_times(tmp_path: Path) -> None:
    tree = some_tree(tmp_path)
    write_ramdisk(tree, tmp_path / "a.gz", prefix="rootfs")
    found = unpack(gzip.decompress((tmp_path / "a.gz").read_bytes()))
    assert list(found) == ["rootfs", *(f"rootfs/{path}" for path, _ in tree.items())]
    assert found["rootfs/usr/bin/program"] == (stat.S_IFREG | 0o755, (tmp_path / "large").read_bytes())
    assert found["rootfs/etc/a"] == (stat.S_IFREG | 0o644, b"text")
    assert found["rootfs/start"][0] == stat.S_IFREG | 0o400
    assert found["rootfs/bin"] == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert found["rootfs/tmp"] == (stat.S_IFDIR | 0o1777, b"")


def test_the_same_tree_gives_the_same_bytes_whatever_the_disk_says(tmp_path: Path) -> None:
    tree = some_tree(tmp_path)
    write_ramdisk(tree, tmp_path / "a.gz")
    os.utime(tmp_path / "large", (1, 1))
    (tmp_path / "large").chmod(0o600)
    write_ramdisk(tree, tmp_path / "b.gz")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_a_folder_comes_before_what_is_in_it() -> None:
    tree = Tree()
    tree.add_file("a/b/c/d", b"")
    tree.add_file("a.b", b"")
    assert [path for path, _ in tree.items()] == ["a", "a.b", "a/b", "a/b/c", "a/b/c/d"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", "a//b", "", ".", ".."])
def test_a_path_out_of_the_image_is_refused(path: str) -> None:
    with pytest.raises(ImageError) as refused:
        Tree().add_file(path, b"")
    assert refused.value.code is ImageCode.BUILD


def test_two_contents_for_one_path_are_refused() -> None:
    tree = Tree()
    tree.add_file("a", b"one")
    tree.add_file("a", b"one")
    with pytest.raises(ImageError):
        tree.add_file("a", b"two")
    with pytest.raises(ImageError):
        tree.add_file("a/b", b"below a file")
