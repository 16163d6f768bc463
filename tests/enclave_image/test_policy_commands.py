"""`teactl policy from-image`: the policy pins what the image measures to, and the signer of a signed one.

Rule: docs/secrets.md, "Policies".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from tea.enclave_image.eif.describe import describe_image
from tea.enclave_image.eif.reader import open_image
from tea.enclave_image.eif.signer import FileSigner
from tea.enclave_image.eif.writer import sign_image
from tea.enclave_image.policy_commands import register
from tea.parent_client.cli import run
from tea.trust.policy import parse_policy


def test_an_images_measurements_become_a_policy(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.yaml"
    line = ["policy", "from-image", str(tiny), "--out", str(out), "--deployment", "test", "--max-age", "60"]
    assert run([*line, "--least-revision", "3", "--epoch", "2"]) == 0
    assert "admits an enclave" in capsys.readouterr().out
    policy = parse_policy(out.read_text())
    with open_image(tiny) as image:
        measured = {index: (value,) for index, value in describe_image(image).pcrs().items() if any(value)}
    assert policy.pcrs == measured
    assert set(measured) == {0, 1, 2}
    assert (policy.deployment, policy.min_revision, policy.min_epoch, policy.max_age) == ("test", 3, 2, 60)
    assert not policy.simulated


def test_the_signer_of_a_signed_image_is_pinned_too(
    tiny: Path, tmp_path: Path, make_signer: Callable[..., FileSigner]
) -> None:
    sign_image(tiny, tmp_path / "signed.eif", make_signer())
    out = tmp_path / "p.yaml"
    root = f"sha256:{'02' * 32}"
    assert run(["policy", "from-image", str(tmp_path / "signed.eif"), "--out", str(out), "--root", root, "--json"]) == 0
    policy = parse_policy(out.read_text())
    assert set(policy.pcrs) == {0, 1, 2, 8}
    assert policy.simulated


def test_what_is_no_image_or_no_root_makes_no_policy(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.yaml"
    broken = tmp_path / "broken.eif"
    broken.write_bytes(tiny.read_bytes()[:-1])
    assert run(["policy", "from-image", str(broken), "--out", str(out)]) == 1
    assert run(["policy", "from-image", str(tiny), "--out", str(out), "--root", "sha256:02"]) == 2
    assert not out.exists()


def test_the_group_is_made_when_nobody_made_it() -> None:
    app = typer.Typer()
    register(app)
    assert [group.name for group in app.registered_groups] == ["policy"]
