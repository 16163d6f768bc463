"""Archives: one form for the same files; whatever else calls itself a ZIP is refused.

May not: take `zipfile`'s word. Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
import zipimport
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.trust.archive import MAX_FILE_NAME, MAX_FILES, MAX_TOTAL, build_archive, has_module, read_archive
from tea.trust.bundle import BundleCode, BundleError

FILES = {"counter.py": b"class Counter: pass\n", "parts/__init__.py": b"", "parts/table.json": b"{}"}
NAMES = st.from_regex(r"x[a-z0-9_]{0,8}(/[a-z0-9_]{1,8}){0,2}\.txt", fullmatch=True)


def build_refusal(files: dict[str, bytes]) -> str:
    with pytest.raises(BundleError) as caught:
        build_archive(files)
    return caught.value.code


def read_refusal(archive: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        read_archive(archive)
    return caught.value.code


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@given(st.dictionaries(NAMES, st.binary(max_size=100), min_size=1, max_size=8))
def test_what_is_built_reads_back(files: dict[str, bytes]) -> None:
    assert read_archive(build_archive(files)) == files


def test_the_order_of_files_makes_no_difference() -> None:
    assert build_archive(FILES) == build_archive(dict(reversed(FILES.items())))


def test_the_bytes_are_pinned() -> None:
    assert hashlib.sha256(build_archive({"a.py": b"A = 1\n"})).hexdigest() == (
        "dc8dfe2be39f9970894b9979fd5ca4bf966036038057cb49f17e8a1e153e31cc"
    )


def test_any_zip_reader_reads_it() -> None:
    archive = zipfile.ZipFile(io.BytesIO(build_archive(FILES)))
    assert archive.testzip() is None
    assert {name: archive.read(name) for name in archive.namelist()} == FILES
    info = archive.getinfo("counter.py")
    assert (info.date_time, info.compress_type) == ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED)
    assert info.external_attr >> 16 == 0o100644


def test_python_imports_from_it(tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(build_archive(FILES))
    spec = zipimport.zipimporter(str(path)).find_spec("counter")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.Counter.__name__ == "Counter"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/counter.py",
        "../counter.py",
        "a/../counter.py",
        "./counter.py",
        "a//b.py",
        "a/",
        "a\\b.py",
        "C:x.py",
        ".hidden",
        "a/.git/x",
        "a b.py",
        "é.py",
        "a\0.py",
        "a.py\n",
        "x" * (MAX_FILE_NAME + 1),
        "counter.pyc",
        "lib.so",
        "evil.pth",
    ],
)
def test_a_name_that_could_mean_something_else_is_refused(name: str) -> None:
    assert build_refusal({name: b""}) == BundleCode.BAD_FILE_NAME


@pytest.mark.parametrize(
    "name",
    [
        "hmac.py",
        "json/__init__.py",
        "thespian/actors.py",
        "msgspec.py",
        "tea/__init__.py",
        "tea.py",
        "os.path.py",
        "__main__.py",
        "sitecustomize.py",
        "cryptography/x.txt",
    ],
)
def test_a_name_that_hides_a_module_of_the_workers_is_refused(name: str) -> None:
    assert build_refusal({"counter.py": b"", name: b""}) == BundleCode.SHADOWED_MODULE


@pytest.mark.parametrize("files", [{"a": b"", "a/b.py": b""}, {"a.py": b"", "a/__init__.py": b""}])
def test_a_name_that_is_a_file_and_a_folder_is_refused(files: dict[str, bytes]) -> None:
    assert build_refusal(files) == BundleCode.BAD_FILE_NAME


def test_an_archive_of_nothing_is_refused() -> None:
    assert build_refusal({}) == BundleCode.BAD_ARCHIVE
    assert read_refusal(zipped({})) == BundleCode.BAD_ARCHIVE
    assert read_refusal(b"") == BundleCode.BAD_ARCHIVE


def test_too_many_files_are_refused() -> None:
    files = {f"x{number}.txt": b"" for number in range(MAX_FILES)}
    assert len(read_archive(build_archive(files))) == MAX_FILES
    files["one-more.txt"] = b""
    assert build_refusal(files) == BundleCode.TOO_LARGE
    assert read_refusal(zipped(files)) == BundleCode.TOO_LARGE


def test_too_many_bytes_are_refused() -> None:
    half = bytes(MAX_TOTAL // 2)
    assert build_refusal({"a.bin": half, "b.bin": half, "c.bin": b"\0"}) == BundleCode.TOO_LARGE
    assert read_refusal(bytes(MAX_TOTAL + (MAX_FILES + 1) * 1024 + 1)) == BundleCode.TOO_LARGE


def test_a_compressed_archive_is_refused() -> None:
    bomb = zipped({"bomb.bin": bytes(10_000_000)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 20_000
    assert read_refusal(bomb) == BundleCode.BAD_ARCHIVE


def test_another_zip_of_the_same_files_is_refused() -> None:
    assert read_refusal(zipped(FILES)) == BundleCode.BAD_ARCHIVE


def test_the_same_name_twice_is_refused() -> None:
    one = build_archive({"a.py": b"A"})
    local = one[: one.index(b"PK\1\2")]
    assert read_refusal(local + one) == BundleCode.BAD_ARCHIVE


def test_bytes_before_between_and_after_are_refused() -> None:
    archive = build_archive(FILES)
    at = archive.index(b"PK\1\2")
    for changed in (b"\0" + archive, archive + b"\0", archive[:at] + b"\0" + archive[at:], archive[:-1]):
        assert read_refusal(changed) == BundleCode.BAD_ARCHIVE


def test_a_directory_that_names_another_file_is_refused() -> None:
    archive = build_archive({"a.py": b"A"})
    assert read_refusal(archive[::-1].replace(b"yp.a", b"yp.b", 1)[::-1]) == BundleCode.BAD_ARCHIVE


def test_a_file_name_that_is_not_ascii_is_refused() -> None:
    assert read_refusal(build_archive({"a.py": b"A"}).replace(b"a.py", b"\xff.py")) == BundleCode.BAD_FILE_NAME


def test_a_bad_name_is_refused_when_read_too() -> None:
    assert read_refusal(build_archive({"aaaa.py": b"A"}).replace(b"aaaa.py", b"../a.py")) == BundleCode.BAD_FILE_NAME


def test_every_cut_and_every_flipped_byte_is_refused() -> None:
    archive = build_archive({"a.py": b"A", "b.py": b"B"})
    for end in range(len(archive)):
        read_refusal(archive[:end])
        changed = bytearray(archive)
        changed[end] ^= 0x55
        read_refusal(bytes(changed))


def test_modules_are_found_as_files_and_packages() -> None:
    assert has_module(FILES, "counter")
    assert has_module(FILES, "parts")
    assert not has_module(FILES, "parts.table")
    assert not has_module(FILES, "other")
