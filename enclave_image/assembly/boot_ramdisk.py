"""The first ramdisk: init and the platform's kernel modules. It is measured with the kernel, into PCR1.

May not: hold anything of the application. Rule: docs/architecture.md, "The enclave image".
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from ..eif.codes import ImageCode, ImageError
from .platforms import PlatformFiles
from .tree import Tree

SOURCE: Final = Path(__file__).parents[1] / "boot" / "init.c"
# No build id, no paths, no warnings let through: the same compiler gives the same bytes wherever it runs.
_FLAGS: Final = ("-std=gnu11", "-Os", "-s", "-static", "-Wall", "-Wextra", "-Werror", "-fno-ident",
    "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none", "-Wl,-z,noexecstack")  # fmt: skip


def build_boot(platform: PlatformFiles, staging: Path) -> Tree:
    """The tree of the init ramdisk. Raises `ImageError(BUILD)`."""
    tree = Tree()
    for folder in ("dev", "proc"):
        tree.add_folder(folder)
    tree.add_folder("rootfs")
    tree.add_file("init", compile_init(staging), executable=True)
    for name, path in platform.modules:
        tree.add_file(f"modules/{name}", path)
    tree.add_file("modules/order", "".join(f"{name}\n" for name, _ in platform.modules).encode())
    return tree


def compile_init(staging: Path) -> Path:
    """init, compiled by the system's gcc. Raises `ImageError(BUILD)` with what gcc said."""
    target = staging / "init"
    # Copied, and compiled by a bare name: no path of this machine can get into it.
    (staging / "init.c").write_bytes(SOURCE.read_bytes())
    try:
        done = subprocess.run(
            ["gcc", *_FLAGS, "-o", "init", "init.c"],
            cwd=staging,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"},
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise ImageError(ImageCode.BUILD, "gcc is not here: apt-get install gcc libc6-dev") from None
    if done.returncode != 0:
        raise ImageError(ImageCode.BUILD, f"init.c does not compile: {done.stderr.strip()[:400]}")
    return target


def compiler() -> str:
    """The compiler's version, for the list of what an image is made of."""
    done = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
