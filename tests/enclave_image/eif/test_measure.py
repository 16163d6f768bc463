"""Measurements: against an independent computation, a golden file, and every version of the format."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.enclave_image.eif.codes import ImageCode, ImageError
from tea.enclave_image.eif.layout import SectionType
from tea.enclave_image.eif.measure import measure
from tea.enclave_image.eif.reader import CHUNK, open_image
from tea.enclave_image.eif.writer import Piece, write_image

from ..conftest import CMDLINE, KERNEL, RAMDISKS, pieces, raw_image

GOLDEN = Path(__file__).parent / "golden" / "tiny-v4.eif"


def independent_pcrs(data: bytes) -> tuple[bytes, bytes, bytes, bool]:
    """PCR0, 1, 2 and whether the CRC holds, from the format's description alone."""
    count = struct.unpack_from(">H", data, 26)[0]
    offsets = struct.unpack_from(f">{count}Q", data, 28)
    kinds: list[tuple[int, bytes]] = []
    for offset in sorted(offsets):
        kind, _, size = struct.unpack_from(">HHQ", data, offset)
        kinds.append((kind, data[offset + 12 : offset + 12 + size]))
    image = first = application = b""
    ramdisks = 0
    for kind, content in kinds:
        ramdisks += kind == 3
        if kind in (1, 2, 3):
            image += content
        if kind in (1, 2) or (kind == 3 and ramdisks == 1):
            first += content
        if kind == 3 and ramdisks > 1:
            application += content
    made = [hashlib.sha384(bytes(48) + hashlib.sha384(one).digest()).digest() for one in (image, first, application)]
    crc = zlib.crc32(data[:544] + data[548:]) == struct.unpack_from(">I", data, 544)[0]
    return made[0], made[1], made[2], crc


def measured(path: Path) -> tuple[bytes, bytes, bytes, bool]:
    with open_image(path) as image:
        found = measure(image)
        return found.pcr0, found.pcr1, found.pcr2, found.crc == image.header.crc


def test_the_pcrs_are_those_of_an_independent_computation(tiny: Path) -> None:
    assert measured(tiny) == independent_pcrs(tiny.read_bytes())
    assert measured(tiny)[3]


def test_the_golden_image_measures_to_its_golden_values() -> None:
    pcr0, pcr1, pcr2, crc = measured(GOLDEN)
    expected = dict(line.split() for line in GOLDEN.with_suffix(".pcrs").read_text().splitlines())
    assert {"PCR0": pcr0.hex(), "PCR1": pcr1.hex(), "PCR2": pcr2.hex()} == expected
    assert crc


def test_the_same_pieces_give_the_golden_bytes(tmp_path: Path) -> None:
    write_image(tmp_path / "again.eif", pieces())
    assert (tmp_path / "again.eif").read_bytes() == GOLDEN.read_bytes()


@pytest.mark.parametrize("version", [2, 3, 4])
def test_every_version_is_read_and_measured(tmp_path: Path, version: int) -> None:
    path = tmp_path / "one.eif"
    write_image(path, pieces(version), version=version)
    assert measured(path) == independent_pcrs(path.read_bytes())


def test_metadata_and_signature_are_not_measured(tmp_path: Path) -> None:
    for name, number in (("a", 4), ("b", 3)):
        write_image(tmp_path / name, pieces(number), version=number)
    assert measured(tmp_path / "a")[:3] == measured(tmp_path / "b")[:3]


def test_an_image_of_several_chunks_is_measured_across_their_borders(tmp_path: Path) -> None:
    large = bytes(CHUNK + 12345), b"x" * (2 * CHUNK + 1), b"y" * (CHUNK - 1)
    path = tmp_path / "large.eif"
    write_image(path, pieces(ramdisks=large))
    assert measured(path) == independent_pcrs(path.read_bytes())


_CONTENT = st.binary(min_size=0, max_size=200)


@settings(max_examples=60, deadline=None)
@given(
    kernel=_CONTENT,
    ramdisks=st.lists(_CONTENT, max_size=4),
    cmdline_last=st.booleans(),
    gap=st.sampled_from([0, 1, 13]),
    data=st.data(),
)
def test_any_layout_is_measured_in_file_order(
    tmp_path_factory: pytest.TempPathFactory,
    kernel: bytes,
    ramdisks: list[bytes],
    cmdline_last: bool,
    gap: int,
    data: st.DataObject,
) -> None:
    sections = [(1, kernel), *((3, one) for one in ramdisks)]
    place = len(sections) if cmdline_last else data.draw(st.integers(0, len(sections)))
    sections.insert(place, (2, CMDLINE))
    order = data.draw(st.permutations(range(len(sections))))
    path = tmp_path_factory.mktemp("layout") / "any.eif"
    path.write_bytes(raw_image(sections, version=3, order=order, gap=gap))
    assert measured(path) == independent_pcrs(path.read_bytes())


def test_a_file_that_changes_while_it_is_measured_is_refused(tiny: Path) -> None:
    with open_image(tiny) as image:
        with tiny.open("ab") as file:
            file.write(b"more")
        with pytest.raises(ImageError) as refused:
            measure(image)
    assert refused.value.code is ImageCode.CHANGED


def test_a_file_that_shrinks_while_it_is_measured_is_refused(tiny: Path) -> None:
    with open_image(tiny) as image:
        with tiny.open("r+b") as file:
            file.truncate(700)
        with pytest.raises(ImageError) as refused:
            measure(image)
    assert refused.value.code is ImageCode.TRUNCATED


def test_what_is_written_says_what_was_given(tiny: Path) -> None:
    with open_image(tiny) as image:
        assert b"".join(image.chunks(image.of(SectionType.KERNEL)[0])) == KERNEL
        assert tuple(b"".join(image.chunks(one)) for one in image.of(SectionType.RAMDISK)) == RAMDISKS
        assert image.cmdline == CMDLINE.decode()


def test_a_source_that_gives_another_size_than_it_said_leaves_no_file(tmp_path: Path) -> None:
    lying = Piece(SectionType.RAMDISK, 10, lambda: (b"nine bytes",) * 2)
    with pytest.raises(ImageError) as refused:
        write_image(tmp_path / "out.eif", [*pieces(ramdisks=()), lying])
    assert refused.value.code is ImageCode.CHANGED
    assert list(tmp_path.iterdir()) == []
