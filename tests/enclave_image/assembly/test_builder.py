"""Building: what is refused before anything is fetched; and, slowly, that builds are the same wherever they run."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tea.enclave_image.assembly.approvers import (
    insecure_development_approvers,
    insecure_development_key,
    is_insecure,
    read_approvers,
)
from tea.enclave_image.assembly.boot_ramdisk import compile_init
from tea.enclave_image.assembly.builder import BuildPlan, build_image, source_date
from tea.enclave_image.assembly.platforms import Platform
from tea.enclave_image.eif.codes import ImageCode, ImageError
from tea.enclave_image.eif.extract import extract
from tea.enclave_image.eif.reader import open_image
from tea.parent_client.cli import run
from tea.trust.approval import Approvers
from tea.trust.keys import PrivateKey

from .test_cpio import unpack
from .test_inputs import bzimage

ROOT = Path(__file__).parents[3]


def test_development_approvers_are_refused_for_hardware(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as refused:
        build_image(BuildPlan(tmp_path / "a.eif", Platform.NITRO))
    assert refused.value.code is ImageCode.PLATFORM
    assert "--approvers" in str(refused.value)


def test_approvers_with_the_development_key_among_others_are_refused_too(tmp_path: Path) -> None:
    mixed = Approvers("d", 1, 1, (insecure_development_key().public, PrivateKey.generate().public))
    assert is_insecure(mixed)
    with pytest.raises(ImageError):
        build_image(BuildPlan(tmp_path / "a.eif", Platform.NITRO, mixed))


def test_development_approvers_are_the_same_everywhere_and_readable(tmp_path: Path) -> None:
    text = insecure_development_approvers().to_yaml()
    (tmp_path / "approvers.yaml").write_text(text)
    assert read_approvers(tmp_path / "approvers.yaml") == insecure_development_approvers()
    assert insecure_development_key().public.text == "ed25519:aaEU8bfI1eAXn3s+sbZyRGkVxhsHnzklXb1umeu40/0="


def test_a_kernel_of_one_s_own_is_for_nitro(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as refused:
        build_image(BuildPlan(tmp_path / "a.eif", kernel=tmp_path / "kernel"))
    assert refused.value.code is ImageCode.PLATFORM


def test_the_build_s_time_is_source_date_epoch_or_the_last_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12345")
    assert source_date() == 12345
    for bad in ("", "yesterday", "-1", "1.5"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", bad)
        with pytest.raises(ImageError):
            source_date()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert source_date() > 1_700_000_000
    assert source_date(7) == 7


def test_a_key_without_its_certificate_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("")
    assert run(["image", "build", "--out", str(tmp_path / "a.eif"), "--key", str(tmp_path / "key")]) == 2


def test_init_compiles_to_the_same_static_program(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = (compile_init(tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second
    assert str(tmp_path).encode() not in first


# ---- slow: real builds -----------------------------------------------------------------------------------------------

CACHE = ROOT / ".tea" / "cache"


def build(
    out: Path,
    *,
    source: Path = ROOT,
    umask: int = 0o022,
    arguments: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
) -> dict[str, object]:
    """`teactl image build` in a process of its own, from a source tree."""
    path = {} if source == ROOT else {"PYTHONPATH": str(source / "src")}
    program = "import sys; from tea.parent_client.cli import main; sys.exit(main())"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "image",
            "build",
            "--out",
            str(out),
            "--json",
            "--cache",
            str(CACHE),
            *arguments,
        ],
        cwd=out.parent,
        env={**os.environ, **path, "SOURCE_DATE_EPOCH": "1767225600", **(env or {})},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    made = json.loads(done.stdout)
    assert isinstance(made, dict)
    return made


def copy_source(source: Path, target: Path) -> Path:
    """A source tree with what a build takes; a copy, so that nobody edits it meanwhile."""
    for name in ("protocol", "trust", "providers", "sdk", "runtime", "enclave_image", "parent_client", "requirements"):
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    ours = shutil.ignore_patterns("*.egg-info")  # its entry points may be those of another day
    shutil.copytree(source / "src", target / "src", symlinks=True, ignore=ours)
    return target


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_builds_in_different_folders_and_surroundings_give_the_same_bytes(tmp_path: Path) -> None:
    here = copy_source(ROOT, tmp_path / "here")
    there = copy_source(here, tmp_path / "there" / "deep")
    first = build(here / "a.eif", source=here, env={"TZ": "UTC", "LC_ALL": "C"})
    strange = {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "HOME": str(tmp_path), "TMPDIR": str(there)}
    strange["PYTHONHASHSEED"] = "77"
    second = build(there / "b.eif", source=there, umask=0o077, env=strange)
    assert first["sha256"] == second["sha256"]
    assert (here / "a.cdx.json").read_bytes() == (there / "b.cdx.json").read_bytes()
    size = first["root_size"]
    assert isinstance(size, int)
    assert size < 45 << 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_root_of_a_gigabyte_is_written_in_little_memory(tmp_path: Path) -> None:
    program = """
import pathlib, resource, sys
from tea.enclave_image.assembly.cpio import write_ramdisk
from tea.enclave_image.assembly.elf import keep_needed_libraries
from tea.enclave_image.assembly.tree import Tree
from tea.enclave_image.eif.metadata import Metadata
from tea.enclave_image.eif.writer import compose, write_image
folder = pathlib.Path(sys.argv[1])
with (folder / "large").open("wb") as file:
    file.truncate(1 << 30)
tree = Tree()
tree.add_file("large", folder / "large")
keep_needed_libraries(tree, "lib")
write_ramdisk(tree, folder / "root.gz")
metadata = Metadata("large", "1", "2026-01-01T00:00:00Z", "tea", "0", "Debian", "6.1")
write_image(folder / "a.eif", compose(folder / "root.gz", "quiet", [folder / "large"], metadata))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 256


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_root_is_the_same_on_both_platforms_and_holds_only_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(bzimage())
    (tmp_path / "nsm.ko").write_bytes(b"module")
    approvers = Approvers("production", 1, 1, (PrivateKey.generate().public,))
    (tmp_path / "approvers.yaml").write_text(approvers.to_yaml())
    ours = ("--approvers", str(tmp_path / "approvers.yaml"))
    blobs = ("--platform", "nitro", "--kernel", str(tmp_path / "kernel"), "--nsm-module", str(tmp_path / "nsm.ko"))
    nitro, machine = build(tmp_path / "n.eif", arguments=(*ours, *blobs)), build(tmp_path / "v.eif", arguments=ours)
    pcrs = [one["Measurements"] for one in (nitro, machine)]
    assert isinstance(pcrs[0], dict)
    assert isinstance(pcrs[1], dict)
    assert pcrs[0]["PCR2"] == pcrs[1]["PCR2"]
    assert pcrs[0]["PCR1"] != pcrs[1]["PCR1"]
    with open_image(tmp_path / "v.eif") as image:
        extract(image, tmp_path / "parts")
    root = unpack(gzip.decompress((tmp_path / "parts" / "ramdisk-1.cpio.gz").read_bytes()))
    assert root["rootfs/etc/tea/approvers.yaml"][1].decode() == approvers.to_yaml()
    assert {path for path in root if path.startswith("rootfs/usr/bin/")} == {"rootfs/usr/bin/python3.11"}
    forbidden = re.compile(r"/(sh|bash|dash|busybox|pip|apt|dpkg|ensurepip|simulator|parent_client|enclave_image)(/|$)")
    assert [path for path in root if forbidden.search(path)] == []
    for floor in ("protocol", "trust", "providers", "sdk", "runtime"):
        assert f"rootfs/usr/lib/python3/dist-packages/tea/{floor}/__init__.py" in root
    boot = unpack(gzip.decompress((tmp_path / "parts" / "ramdisk-0.cpio.gz").read_bytes()))
    assert {path.partition("/")[0] for path in boot} == {"dev", "proc", "rootfs", "init", "modules"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_component_is_listed_with_version_hash_and_licence(tmp_path: Path) -> None:
    build(tmp_path / "a.eif")
    listed = json.loads((tmp_path / "a.cdx.json").read_text())
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.5")
    names = {one["name"] for one in listed["components"]}
    assert {"libc6", "cryptography", "thespian", "tea-runtime"} <= names
    for one in listed["components"]:
        assert one["version"]
        assert one["licenses"][0]["license"]["name"]
        assert one["name"] == "tea-runtime" or re.fullmatch("[0-9a-f]{64}", one["hashes"][0]["content"])
