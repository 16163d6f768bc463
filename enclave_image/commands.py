"""`teactl image`: build, describe, measure, verify, sign, extract and compare enclave images.

May not: hold what another program would want: that is in `eif` and `assembly`.
Rule: docs/architecture.md, "teactl"; exit status 0 yes, 1 refused or different, 2 wrong usage.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Annotated, Final

import typer

from . import building_commands, enclave_commands
from .console import Json, emit
from .eif.compare import compare
from .eif.describe import Description, describe_image
from .eif.extract import extract as extract_image
from .eif.reader import open_image
from .eif.signer import open_signer
from .eif.verify import verify_image
from .eif.writer import sign_image

app = typer.Typer(help="Build, measure, verify and sign enclave images (EIF).", no_args_is_help=True)
Image = Annotated[Path, typer.Argument(help="An enclave image file.", exists=True, dir_okay=False)]
building_commands.register(app)
_PCR: Final = re.compile(r"([0128])=([0-9a-fA-F]{96})")


def register(root: typer.Typer) -> None:
    """Add `image` and `enclave` to teactl."""
    root.add_typer(app, name="image")
    enclave_commands.register(root)


@app.command()
def describe(path: Image, as_json: Json = False) -> None:
    """Show what an image is: sections, measurements, signature, metadata. --json has nitro-cli's field names."""
    with open_image(path) as image:
        described = describe_image(image)
        emit(described.to_json(), as_json, _lines(described))


@app.command()
def measure(path: Image, as_json: Json = False) -> None:
    """Print the PCRs that an enclave of this image attests."""
    with open_image(path) as image:
        pcrs = {f"PCR{index}": value.hex() for index, value in describe_image(image).pcrs().items()}
        emit(pcrs, as_json, (f"{name} {value}" for name, value in pcrs.items()))


@app.command()
def verify(
    path: Image,
    pcr: Annotated[list[str] | None, typer.Option(help="Expected: INDEX=HEX; repeat for each.")] = None,
    signed: Annotated[bool, typer.Option("--signed", help="Refuse an image without a signature.")] = False,
    expired: Annotated[bool, typer.Option("--expired", help="Accept a signing certificate out of its time.")] = False,
    as_json: Json = False,
) -> None:
    """Check structure, CRC and signature, and that the measurements are the expected ones."""
    expected = dict(_pcr(text) for text in pcr or [])
    at = None if expired else datetime.datetime.now(datetime.UTC)
    with open_image(path) as image:
        described = verify_image(image, pcrs=expected, signed=signed, at=at)
        pcrs = {f"PCR{index}": value.hex() for index, value in described.pcrs().items()}
        result = {"ok": True, "signed": described.signature is not None, "Measurements": pcrs}
        emit(result, as_json, [f"{path} holds", *(f"{name} {value}" for name, value in pcrs.items())])


@app.command()
def sign(
    path: Image,
    key: Annotated[str, typer.Option(help="Private key: a PEM file, pkcs11:... or awskms:KEY?region=...")],
    certificate: Annotated[Path, typer.Option(help="Its certificate, PEM.", exists=True)],
    out: Annotated[Path | None, typer.Option(help="Where to; the image itself by default.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with the key's password, or the token's PIN.", exists=True)
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign an image, in the place of the signature that it has. Its PCR8 is then the certificate's."""
    signer = open_signer(key, certificate, password_file)
    target = out or path
    sign_image(path, target, signer)
    with open_image(target) as image:
        pcr8 = verify_image(image, signed=True).pcrs()[8].hex()
    result = {"ok": True, "path": str(target), "algorithm": signer.algorithm.name, "PCR8": pcr8}
    emit(result, as_json, [f"{target} is signed with {signer.algorithm.name}", f"PCR8 {pcr8}"])


@app.command()
def extract(
    path: Image, out: Annotated[Path, typer.Option(help="Folder for the sections.")], as_json: Json = False
) -> None:
    """Write every section of an image as a file."""
    with open_image(path) as image:
        written = extract_image(image, out)
    emit({name: str(at) for name, at in written.items()}, as_json, (str(at) for at in written.values()))


@app.command()
def diff(first: Image, second: Image, as_json: Json = False) -> None:
    """Say in what two images differ. Exit status 0: in nothing that they are made of; 1: they differ."""
    with open_image(first) as one, open_image(second) as other:
        found = compare(describe_image(one), describe_image(other))
    result = {
        "same": not found,
        "differences": [{"what": each.what, "first": each.first, "second": each.second} for each in found],
    }
    emit(result, as_json, [str(each) for each in found] or ["the same"])
    if found:
        raise typer.Exit(1)


def _pcr(text: str) -> tuple[int, bytes]:
    match = _PCR.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r}: expected INDEX=HEX with index 0, 1, 2 or 8 and 96 hex digits")
    return int(match[1]), bytes.fromhex(match[2])


def _lines(one: Description) -> list[str]:
    header = one.image.header
    lines = [f"EIF version {header.version}, {header.architecture}, {one.image.size} bytes"]
    lines.append(f"CRC {'holds' if one.crc_holds else 'does NOT hold: the file is damaged'}")
    if one.metadata is not None:
        lines.append(f"{one.metadata.name} {one.metadata.version}, built {one.metadata.build_time} by "
                     f"{one.metadata.build_tool} {one.metadata.build_tool_version}, {one.metadata.operating_system}, "
                     f"kernel {one.metadata.kernel_version}")  # fmt: skip
    lines.append(f"cmdline {one.cmdline}")
    lines += [f"{each.type.name.lower():9} at {each.offset:>10}, {each.size:>10} bytes" for each in one.image.sections]
    lines += [f"PCR{index} {value.hex()}" for index, value in one.pcrs().items()]
    if one.signature is None:
        lines.append("not signed")
    else:
        problem = one.signature_problem
        lines.append("signed, the signature holds" if problem is None else f"signed, but: {problem}")
    lines += [f"irregular: {each}" for each in one.image.irregularities]
    return lines
