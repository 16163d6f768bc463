"""The metadata section: JSON that says what an image is called and how it was built. Nobody measures it.

May not: be believed: it is not in any PCR, and only a signature of the file's PCR0 stands beside it.
Rule: AWS, aws-nitro-enclaves-image-format, src/defs (`EifIdentityInfo`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .codes import ImageCode, ImageError

_BUILD_FIELDS: Final = ("BuildTime", "BuildTool", "BuildToolVersion", "OperatingSystem", "KernelVersion")


@dataclass(frozen=True)
class Metadata:
    """What the section says. Texts are free; `docker` and `custom` are any JSON."""

    name: str
    version: str
    build_time: str
    """RFC 3339, from SOURCE_DATE_EPOCH where we build."""
    build_tool: str
    build_tool_version: str
    operating_system: str
    kernel_version: str
    docker: object = field(default_factory=dict)
    custom: object = None

    def encode(self) -> bytes:
        """The section's data: compact JSON with keys in AWS's order, those of free objects sorted."""
        fields: dict[str, object] = {
            "ImageName": self.name,
            "ImageVersion": self.version,
            "BuildMetadata": dict(zip(_BUILD_FIELDS, self._build(), strict=True)),
            "DockerInfo": _sorted(self.docker),
            "CustomMetadata": _sorted(self.custom),
        }
        return json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode()

    def describe(self) -> dict[str, object]:
        """As `nitro-cli describe-eif` prints it under `Metadata` (custom fields stand beside the others there)."""
        described: dict[str, object] = dict(zip(_BUILD_FIELDS, self._build(), strict=True))
        described["DockerInfo"] = self.docker
        if isinstance(self.custom, Mapping):
            described.update({key: value for key, value in self.custom.items() if key not in described})
        return described

    def _build(self) -> tuple[str, ...]:
        return (self.build_time, self.build_tool, self.build_tool_version, self.operating_system, self.kernel_version)


def parse_metadata(data: bytes, offset: int) -> Metadata:
    """The metadata in a section's data that begins at `offset`. Raises `ImageError(METADATA)`."""
    try:
        fields = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ImageError(ImageCode.METADATA, f"the metadata is no JSON: {error}", offset=offset) from None
    if not isinstance(fields, dict):
        raise ImageError(ImageCode.METADATA, "the metadata is no JSON object", offset=offset)
    build = fields.get("BuildMetadata")
    if not isinstance(build, dict):
        raise ImageError(ImageCode.METADATA, "the metadata has no BuildMetadata object", offset=offset)
    texts = [_text(fields, name, offset) for name in ("ImageName", "ImageVersion")]
    texts += [_text(build, name, offset) for name in _BUILD_FIELDS]
    if "DockerInfo" not in fields:
        raise ImageError(ImageCode.METADATA, "the metadata has no DockerInfo", offset=offset)
    name, version, time, tool, tool_version, system, kernel = texts
    free = fields["DockerInfo"], fields.get("CustomMetadata")
    return Metadata(name, version, time, tool, tool_version, system, kernel, *free)


def _text(fields: Mapping[str, Any], name: str, offset: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ImageError(ImageCode.METADATA, f"the metadata's {name} is no text", offset=offset)
    return value


def _sorted(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return made


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
