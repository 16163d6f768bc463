"""Files and folders of the operator: bounds, wholeness, privacy."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tea.parent_client.files import private_folder, read_bytes, read_text, require_private, write_new, write_whole
from tea.parent_client.refusal import Refusal


def test_a_file_over_the_limit_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(11))
    assert read_bytes(path, "thing", 11) == bytes(11)
    with pytest.raises(Refusal, match="has more than 10 bytes: it is no thing"):
        read_bytes(path, "thing", 10)
    with pytest.raises(Refusal, match="has more than 10 bytes"):
        read_bytes(Path("/dev/zero"), "thing", 10)


def test_text_that_is_no_utf_8_is_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"ab\xff")
    with pytest.raises(Refusal, match="found the byte 0xff at 2, expected UTF-8 text: it is no manifest"):
        read_text(path, "manifest")


def test_a_file_is_replaced_whole_with_nothing_left_over(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x"
    write_whole(path, "one")
    write_whole(path, b"two", 0o600)
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["x"]
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "deep", "x")


def test_a_new_file_never_takes_the_place_of_one_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_new(path, b"one", 0o600)
    with pytest.raises(FileExistsError):
        write_new(path, b"two", 0o600)
    assert path.read_bytes() == b"one"
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


def test_a_private_folder_is_made_with_its_parents_for_nobody_else(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "a" / "b")
    assert private_folder(made) == made
    for folder in (made, made.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(PermissionError, match="others can write to the folder"):
        require_private(tmp_path)


def test_a_folder_that_others_can_only_read_is_fine(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    require_private(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to user 12345, expected 0"):
        private_folder(folder)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        require_private(tmp_path / "file")
    with pytest.raises(OSError, match=r"exists|directory"):
        private_folder(tmp_path / "file")
    with pytest.raises(OSError, match="directory"):
        private_folder(tmp_path / "file" / "below")
    with pytest.raises(FileNotFoundError):
        require_private(tmp_path / "nowhere")
