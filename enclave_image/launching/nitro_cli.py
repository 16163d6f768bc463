"""Enclaves on a parent instance, by nitro-cli: arguments in, its JSON out.

May not: be run here against hardware: it is tested with a stand-in that records arguments and prints recorded JSON.
Rule: AWS, Nitro Enclaves user guide, "Nitro Enclaves Command Line Interface".
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Final

from ..eif.codes import ImageCode, ImageError
from .launcher import Enclave, LaunchPlan

PROGRAM: Final = "nitro-cli"
SECONDS: Final = 120


class NitroCli:
    """Drives nitro-cli."""

    def __init__(self, program: str = PROGRAM) -> None:
        self._program = program

    def run(self, plan: LaunchPlan) -> Enclave:
        """`nitro-cli run-enclave`."""
        arguments = ["run-enclave", "--eif-path", str(plan.image), "--enclave-name", plan.name]
        arguments += ["--cpu-count", str(plan.cpus), "--memory", str(plan.memory_mib)]
        if plan.cid is not None:
            arguments += ["--enclave-cid", str(plan.cid)]
        if plan.debug:
            arguments.append("--debug-mode")
        return _enclave(self._ask(*arguments), state="RUNNING")

    def enclaves(self) -> tuple[Enclave, ...]:
        """`nitro-cli describe-enclaves`."""
        answer = self._ask("describe-enclaves")
        if not isinstance(answer, list):
            raise _odd("describe-enclaves", "is no list")
        return tuple(_enclave(one) for one in answer)

    def console(self, name: str, follow: bool) -> None:
        """`nitro-cli console`, which follows until it is interrupted."""
        found = self._find(name)
        command = [self._program, "console", "--enclave-id", found.enclave_id]
        status = subprocess.run(command, check=False).returncode
        if status != 0:
            raise ImageError(ImageCode.ENCLAVE, f"nitro-cli console ended with {status}: was it run with --debug?")

    def terminate(self, name: str) -> Enclave:
        """`nitro-cli terminate-enclave`."""
        found = self._find(name)
        answer = self._ask("terminate-enclave", "--enclave-id", found.enclave_id)
        if not isinstance(answer, Mapping) or answer.get("Terminated") is not True:
            raise ImageError(ImageCode.ENCLAVE, f"nitro-cli did not end {found.enclave_id}")
        return Enclave(
            found.name, found.enclave_id, found.process_id, found.cid, found.cpus, found.memory_mib, "TERMINATED"
        )

    def _find(self, name: str) -> Enclave:
        for one in self.enclaves():
            if name in (one.name, one.enclave_id):
                return one
        raise ImageError(ImageCode.ENCLAVE, f"no enclave {name} runs here: see `teactl enclave list`")

    def _ask(self, *arguments: str) -> object:
        try:
            done = subprocess.run(
                [self._program, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ImageError(ImageCode.ENCLAVE, f"{self._program} {arguments[0]}: {error}") from None
        if done.returncode != 0:
            # Its sentences are long and end in a backtrace's path: the first line with a word says what it was.
            said = next((line for line in done.stderr.splitlines() if line.strip()), "it said nothing")
            raise ImageError(ImageCode.ENCLAVE, f"{self._program} {arguments[0]} failed: {said}")
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise _odd(arguments[0], "is no JSON") from None


def _enclave(answer: object, state: str | None = None) -> Enclave:
    if not isinstance(answer, Mapping):
        raise _odd("", "is no object")
    try:
        details = tuple((key, answer[key]) for key in ("CPUIDs", "Flags", "Measurements") if key in answer)
        return Enclave(
            name=str(answer.get("EnclaveName", "")),
            enclave_id=str(answer["EnclaveID"]),
            process_id=int(answer.get("ProcessID", 0)),
            cid=int(answer["EnclaveCID"]),
            cpus=int(answer["NumberOfCPUs"]),
            memory_mib=int(answer["MemoryMiB"]),
            state=state or str(answer["State"]),
            details=details,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise _odd("", f"lacks or misuses {error}") from None


def _odd(command: str, why: str) -> ImageError:
    return ImageError(ImageCode.ENCLAVE, f"nitro-cli {command}'s answer {why}: is this another version?")
