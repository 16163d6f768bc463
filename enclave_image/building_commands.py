"""`teactl image build` and `teactl image lock`.

May not: hold what another program would want: that is in `assembly`. Rule: docs/architecture.md, "teactl".
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from .assembly import debian
from .assembly.approvers import insecure_development_approvers, read_approvers
from .assembly.builder import BuildPlan, build_image
from .assembly.platforms import Platform
from .console import Json, emit
from .eif.signer import open_signer


def register(app: typer.Typer) -> None:
    """Add `build` and `lock` to `teactl image`."""
    app.command()(build)
    app.command()(lock)


def build(
    out: Annotated[Path, typer.Option(help="The image to write; its SBOM lies beside it (.cdx.json).")],
    platform: Annotated[Platform, typer.Option(help="Where it runs.")] = Platform.VM,
    approvers: Annotated[Path | None, typer.Option(help="The approvers' file (YAML).", exists=True)] = None,
    name: Annotated[str, typer.Option(help="The image's name, in its metadata.")] = "tea-runtime",
    kernel: Annotated[Path | None, typer.Option(help="nitro: a bzImage, instead of nitro-cli's.", exists=True)] = None,
    nsm_module: Annotated[Path | None, typer.Option(help="nitro: nsm.ko, instead of nitro-cli's.", exists=True)] = None,
    key: Annotated[str | None, typer.Option(help="Sign with this key: a PEM file, pkcs11:... or awskms:...")] = None,
    certificate: Annotated[Path | None, typer.Option(help="The key's certificate (PEM).", exists=True)] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with the key's password, or the token's PIN.", exists=True)
    ] = None,
    cache: Annotated[Path, typer.Option(help="Packages and wheels by hash.")] = Path(".tea/cache"),
    as_json: Json = False,
) -> None:
    """Build an image from Debian packages and wheels by hash: the same sources give the same bytes."""
    if (key is None) != (certificate is None):
        raise typer.BadParameter("give --key and --certificate together, or neither")
    signer = open_signer(key, certificate, password_file) if key is not None and certificate is not None else None
    chosen = read_approvers(approvers) if approvers is not None else insecure_development_approvers()
    built = build_image(
        BuildPlan(out, platform, chosen, name, kernel, nsm_module, cache=cache.absolute(), signer=signer)
    )
    lines = [f"{built.path}  sha256:{built.digest}  {built.size} bytes in {built.seconds:.1f} s"]
    lines += [f"PCR{index} {value.hex()}" for index, value in built.pcrs.items()]
    lines.append(f"{built.sbom}  {built.components} components")
    emit(built.to_json(), as_json, lines)


def lock(as_json: Json = False) -> None:
    """Write the lock of Debian packages anew, from what apt has now. Other packages are another image."""
    before = debian.LOCK.read_bytes() if debian.LOCK.exists() else b""
    packages = debian.newest()
    debian.write_lock(packages)
    changed = hashlib.sha256(debian.LOCK.read_bytes()).digest() != hashlib.sha256(before).digest()
    listed = {one.name: {"version": one.version, "sha256": one.digest} for one in packages}
    emit(
        {"changed": changed, "packages": listed},
        as_json,
        [*(f"{one.name} {one.version}" for one in packages), "changed" if changed else "nothing changed"],
    )
