"""Malformed images: each is refused with its code and the offset at which it went wrong."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.enclave_image.eif.codes import ImageCode, ImageError
from tea.enclave_image.eif.describe import describe_image
from tea.enclave_image.eif.reader import open_image
from tea.enclave_image.eif.verify import verify_image

from ..conftest import CMDLINE, KERNEL, METADATA, raw_image

META = (5, METADATA.encode())
PLAIN = [(1, KERNEL), (2, CMDLINE), META, (3, b"one"), (3, b"two")]


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """Overwrite bytes and make the CRC true again: structure alone is tested."""
    changed = data[:offset] + new + data[offset + len(new) :]
    return changed[:544] + struct.pack(">I", zlib.crc32(changed[:544] + changed[548:])) + changed[548:]


def u16(value: int) -> bytes:
    return struct.pack(">H", value)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


GOOD = raw_image(PLAIN)
KERNEL_AT = 548
CMDLINE_AT = KERNEL_AT + 12 + len(KERNEL)
META_AT = CMDLINE_AT + 12 + len(CMDLINE)
RAMDISK_AT = META_AT + 12 + len(META[1])

REFUSED: dict[str, tuple[bytes, ImageCode, int | None]] = {
    "an empty file": (b"", ImageCode.MAGIC, 0),
    "another kind of file": (b"\x7fELF" + GOOD[4:], ImageCode.MAGIC, 0),
    "a cut header": (GOOD[:300], ImageCode.TRUNCATED, 300),
    "a header without sections": (GOOD[:548], ImageCode.TRUNCATED, 28),
    "version 1": (patched(GOOD, 4, u16(1)), ImageCode.VERSION, 4),
    "version 5": (patched(GOOD, 4, u16(5)), ImageCode.VERSION, 4),
    "an unknown flag": (patched(GOOD, 6, u16(2)), ImageCode.FLAGS, 6),
    "a reserved field": (patched(GOOD, 24, u16(1)), ImageCode.RESERVED, 24),
    "the unused field": (patched(GOOD, 540, b"\0\0\0\1"), ImageCode.RESERVED, 540),
    "no sections": (patched(GOOD, 26, u16(0)), ImageCode.SECTION_COUNT, 26),
    "33 sections": (patched(GOOD, 26, u16(33)), ImageCode.SECTION_COUNT, 26),
    "an offset beyond the count": (patched(GOOD, 28 + 8 * 5, u64(600)), ImageCode.SECTION_COUNT, 28 + 8 * 5),
    "a size beyond the count": (patched(GOOD, 284 + 8 * 31, u64(1)), ImageCode.SECTION_COUNT, 284 + 8 * 31),
    "fewer sections than in the table": (patched(GOOD, 26, u16(4)), ImageCode.SECTION_COUNT, 28 + 8 * 4),
    "an offset in the header": (patched(GOOD, 28, u64(4)), ImageCode.SECTION_OFFSET, 28),
    "an offset behind the end": (patched(GOOD, 28, u64(1 << 40)), ImageCode.SECTION_OFFSET, 28),
    "an offset that wraps": (patched(GOOD, 28, u64((1 << 64) - 1)), ImageCode.SECTION_OFFSET, 28),
    "a size that differs": (patched(GOOD, 284, u64(9)), ImageCode.SECTION_SIZE, KERNEL_AT + 4),
    "a huge size": (
        patched(patched(GOOD, 284, u64(1 << 63)), KERNEL_AT + 4, u64(1 << 63)),
        ImageCode.TRUNCATED,
        284,
    ),
    "an unknown type": (patched(GOOD, KERNEL_AT, u16(9)), ImageCode.SECTION_TYPE, KERNEL_AT),
    "type 0": (patched(GOOD, KERNEL_AT, u16(0)), ImageCode.SECTION_TYPE, KERNEL_AT),
    "section flags": (patched(GOOD, KERNEL_AT + 2, u16(1)), ImageCode.RESERVED, KERNEL_AT + 2),
    "metadata in version 3": (patched(GOOD, 4, u16(3)), ImageCode.SECTION_TYPE, META_AT),
    "a signature in version 2": (raw_image([(1, b""), (2, b""), (4, b"")], version=2), ImageCode.SECTION_TYPE, 572),
    "the same section twice": (patched(GOOD, 28 + 8, u64(KERNEL_AT)), ImageCode.SECTION_SIZE, KERNEL_AT + 4),
    "no kernel": (raw_image(PLAIN[1:]), ImageCode.MISSING, 26),
    "no cmdline": (raw_image([PLAIN[0], *PLAIN[2:]]), ImageCode.MISSING, 26),
    "no metadata in version 4": (raw_image(PLAIN[:2]), ImageCode.MISSING, 26),
    "two kernels": (raw_image([*PLAIN, (1, b"again")]), ImageCode.DUPLICATE, RAMDISK_AT + 30),
    "two signatures": (raw_image([*PLAIN, (4, b"a"), (4, b"b")]), ImageCode.DUPLICATE, RAMDISK_AT + 43),
    "a ramdisk before the kernel": (raw_image([(3, b"x"), *PLAIN]), ImageCode.ORDER, 548),
    "a signature of 32,769 bytes": (raw_image([*PLAIN, (4, bytes(32769))]), ImageCode.SIGNATURE_SIZE, RAMDISK_AT + 30),
    "a cmdline of a megabyte": (raw_image([(1, b""), (2, bytes(1 << 20)), META]), ImageCode.CMDLINE, 560),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_malformed_image_is_refused_with_offset_and_reason(tmp_path: Path, what: str) -> None:
    data, code, offset = REFUSED[what]
    path = tmp_path / "bad.eif"
    path.write_bytes(data)
    with pytest.raises(ImageError) as refused:
        open_image(path)
    assert (refused.value.code, refused.value.offset) == (code, offset)
    assert f"at byte {offset}: " in str(refused.value)


def test_sections_that_share_bytes_are_refused(tmp_path: Path) -> None:
    inner = struct.pack(">HHQ", 3, 0, 0)
    data = raw_image([(1, b"kernel" + inner), (2, b""), META, (3, b"")])
    data = patched(data, 28 + 8 * 3, u64(548 + 12 + 6))
    path = tmp_path / "bad.eif"
    path.write_bytes(data)
    with pytest.raises(ImageError) as refused:
        open_image(path)
    assert refused.value.code is ImageCode.OVERLAP


IRREGULAR: dict[str, tuple[bytes, ImageCode]] = {
    "bytes between sections": (raw_image(PLAIN, gap=3), ImageCode.GAP),
    "bytes at the end": (patched(GOOD + b"tail", 0, b""), ImageCode.GAP),
    "a table in another order": (raw_image(PLAIN, order=[0, 1, 2, 4, 3]), ImageCode.ORDER),
}


@pytest.mark.parametrize("what", IRREGULAR)
def test_what_readers_could_take_in_two_ways_is_described_and_not_verified(tmp_path: Path, what: str) -> None:
    data, code = IRREGULAR[what]
    path = tmp_path / "odd.eif"
    path.write_bytes(data)
    with open_image(path) as image:
        described = describe_image(image)
        assert described.crc_holds
        assert described.to_json()["Irregularities"]
        with pytest.raises(ImageError) as refused:
            verify_image(image)
    assert refused.value.code is code


@pytest.mark.parametrize(
    ("sections", "code"),
    [
        ([(1, b""), (2, b"two\nlines"), META], ImageCode.CMDLINE),
        ([(1, b""), (2, b"caf\xc3\xa9"), META], ImageCode.CMDLINE),
        ([(1, b""), (2, b""), (5, b"{}")], ImageCode.METADATA),
        ([(1, b""), (2, b""), (5, b"[" * 100000)], ImageCode.METADATA),
        ([(1, b""), (2, b""), (5, b'{"a": 1, "a": 2}')], ImageCode.METADATA),
        ([(1, b""), (2, b""), (5, b"\xff")], ImageCode.METADATA),
        ([(1, b""), (2, b""), (5, METADATA.encode().replace(b'"DockerInfo"', b'"Docker"'))], ImageCode.METADATA),
        ([(1, b""), (2, b""), (5, METADATA.encode().replace(b'"1.0"', b"1.0"))], ImageCode.METADATA),
        ([(1, b""), (2, b""), (5, METADATA.encode().replace(b"{}", b"NaN"))], ImageCode.METADATA),
        ([*PLAIN, (4, b"")], ImageCode.SIGNATURE_FORMAT),
        ([*PLAIN, (4, b"\x80")], ImageCode.SIGNATURE_FORMAT),
        ([*PLAIN, (4, b"\x81" * 30000)], ImageCode.SIGNATURE_FORMAT),
    ],
)
def test_a_malformed_section_is_refused(tmp_path: Path, sections: list[tuple[int, bytes]], code: ImageCode) -> None:
    path = tmp_path / "bad.eif"
    path.write_bytes(raw_image(sections))
    with open_image(path) as image, pytest.raises(ImageError) as refused:
        describe_image(image)
    assert refused.value.code is code
    assert refused.value.offset is not None


def test_a_terminated_command_line_is_read_as_the_kernel_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "one.eif"
    path.write_bytes(raw_image([(1, b""), (2, b"quiet\0"), META]))
    with open_image(path) as image:
        assert image.cmdline == "quiet"


def outcome(path: Path) -> str:
    """What is said of a file: why it is refused, or all that it is described as."""
    try:
        with open_image(path) as image:
            described = describe_image(image)
            return repr(described.to_json())
    except ImageError as error:
        return error.code.value


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Path]:
    folder = tmp_path_factory.mktemp("scratch")

    def write(data: bytes) -> Path:
        path = folder / "one.eif"
        path.write_bytes(data)
        return path

    return write


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, len(GOOD) - 1))
def test_any_truncation_is_refused(scratch: Callable[[bytes], Path], cut: int) -> None:
    with pytest.raises(ImageError) as refused:
        open_image(scratch(GOOD[:cut])).close()
    assert refused.value.offset is not None


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 8 * len(GOOD) - 1))
def test_any_flipped_bit_is_refused_or_shown(scratch: Callable[[bytes], Path], at: int) -> None:
    changed = bytearray(GOOD)
    changed[at // 8] ^= 1 << (at % 8)
    path = scratch(bytes(changed))
    try:
        with open_image(path) as image:
            described = describe_image(image)
            assert not described.crc_holds
            with pytest.raises(ImageError):
                verify_image(image)
    except ImageError as error:
        assert error.code in ImageCode


@settings(max_examples=100, deadline=None)
@given(order=st.permutations(PLAIN))
def test_any_reordering_measures_to_something_else_or_is_refused(
    scratch: Callable[[bytes], Path], order: list[tuple[int, bytes]]
) -> None:
    measured_order = [one for one in order if one[0] in (1, 2, 3)]
    same = measured_order == [one for one in PLAIN if one[0] in (1, 2, 3)]
    try:
        with open_image(scratch(raw_image(order))) as image:
            found = verify_image(image).measurements.pcr0
    except ImageError as error:
        assert error.code is ImageCode.ORDER
        return
    with open_image(scratch(GOOD)) as image:
        assert (verify_image(image).measurements.pcr0 == found) is same


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=1200))
def test_no_bytes_raise_anything_but_a_refusal(scratch: Callable[[bytes], Path], data: bytes) -> None:
    outcome(scratch(data))
    outcome(scratch(b".eif\0\4\0\0" + data))
    outcome(scratch(GOOD[:548] + data))
