"""`teactl policy from-image`: the policy that admits enclaves of one image, whoever runs them.

May not: pin what the image does not measure to. Rule: docs/secrets.md, "Policies"; the group `policy` is the parent
client's, found on the application by its name, since floors that stand beside each other do not import each other.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from tea.trust.policy import Policy
from tea.trust.roots import Roots, aws_roots

from .console import Json, emit
from .eif.reader import open_image
from .eif.verify import verify_image

GROUP: Final = "policy"
_ROOT_HEX: Final = 64


def register(root: typer.Typer) -> None:
    """Add `from-image` to the group `policy`, which is made when nobody made it."""
    group = next((one.typer_instance for one in root.registered_groups if one.name == GROUP), None)
    if group is None:
        group = typer.Typer(help="Write policies, and say what they admit.", no_args_is_help=True)
        root.add_typer(group, name=GROUP)
    group.command("from-image")(from_image)


def from_image(
    path: Annotated[Path, typer.Argument(help="An enclave image file.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="The policy to write.")],
    deployment: Annotated[str | None, typer.Option(help="The deployment that it must say it is.")] = None,
    least_revision: Annotated[int, typer.Option(min=0, help="The least revision of its manifest.")] = 0,
    epoch: Annotated[int, typer.Option(min=0, help="The least epoch of its approvers.")] = 0,
    max_age: Annotated[int | None, typer.Option(min=1, help="Seconds that a document may be old.")] = None,
    root: Annotated[str | None, typer.Option(help="A simulated root instead of AWS's: sha256:HEX of its DER.")] = None,
    expired: Annotated[bool, typer.Option("--expired", help="Accept a signing certificate out of its time.")] = False,
    as_json: Json = False,
) -> None:
    """Verify an image and write the policy that admits what boots from it: PCR0 to 2, and PCR8 when it is signed."""
    at = None if expired else datetime.datetime.now(datetime.UTC)
    with open_image(path) as image:
        pcrs = verify_image(image, pcrs={}, signed=False, at=at).pcrs()
    policy = Policy(
        pinned=_roots(root),
        simulated=root is not None,
        pcrs={index: (value,) for index, value in pcrs.items() if any(value)},
        deployment=deployment,
        min_revision=least_revision,
        min_epoch=epoch,
        max_age=max_age,
    )
    out.write_text(policy.to_yaml())
    lines = policy.explain()
    heading = f"{out} admits an enclave when all of this holds:"
    emit({"ok": True, "path": str(out), "admits": lines}, as_json, [heading, *(f"- {line}" for line in lines)])


def _roots(root: str | None) -> Roots:
    if root is None:
        return aws_roots()
    digest = root.removeprefix("sha256:")
    if len(digest) != _ROOT_HEX or digest.strip("0123456789abcdef"):
        raise typer.BadParameter("--root takes sha256: and 64 hex digits")
    return Roots.from_digests([bytes.fromhex(digest)])
