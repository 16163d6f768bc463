"""Settings as they arrive: content-addressed chunks, checked one by one, joined into bundles.

May not: believe a size or a digest before the bytes agree, or keep more than the bound. Nothing is parsed here.
Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

import hashlib
from typing import Final

from tea.protocol.channels import BundleOffer, SettingsOffer
from tea.protocol.errors import CallError, Code

MAX_BUNDLE: Final = 64 << 20
MAX_TOTAL: Final = 512 << 20
"""Bytes of all bundles of one offer."""
MAX_BUNDLES: Final = 1024
MAX_MANIFEST: Final = 512 << 10
MAX_CHUNK: Final = 512 << 10
MAX_VARIABLES: Final = 256
MAX_VARIABLE: Final = 32 << 10


class SettingsStore:
    """Holds one offer and the chunks that have come, and the bundles of the last activation, to be offered again."""

    def __init__(self) -> None:
        self._offer: SettingsOffer | None = None
        self._wanted: set[bytes] = set()
        self._chunks: dict[bytes, bytes] = {}
        self._bundles: dict[bytes, bytes] = {}
        self._room = 0
        """Bytes that the chunks of this offer may have together."""
        self.held = 0
        """Bytes of the chunks that are kept."""

    def offer(self, settings: SettingsOffer) -> tuple[bytes, ...]:
        """Take an offer; the chunks that are missing, in order. Raises `CallError(INVALID)` on what cannot be."""
        if len(settings.manifest) > MAX_MANIFEST:
            raise _invalid(f"a manifest has at most {MAX_MANIFEST} bytes, this one has {len(settings.manifest)}")
        if len(settings.environment) > MAX_VARIABLES:
            raise _invalid(f"an environment has at most {MAX_VARIABLES} variables, not {len(settings.environment)}")
        for name, value in settings.environment.items():
            if len(name) + len(value) > MAX_VARIABLE:
                raise _invalid(f"the variable {name[:64]} is longer than {MAX_VARIABLE} characters")
        if len(settings.bundles) > MAX_BUNDLES:
            raise _invalid(f"an offer has at most {MAX_BUNDLES} bundles, not {len(settings.bundles)}")
        if sum(bundle.size for bundle in settings.bundles) > MAX_TOTAL:
            raise _invalid(f"an offer's bundles have at most {MAX_TOTAL} bytes together")
        for bundle in settings.bundles:
            self._check(bundle)
        coming = [bundle for bundle in settings.bundles if bundle.digest not in self._bundles]
        named = dict.fromkeys(chunk for bundle in coming for chunk in bundle.chunks)
        self._offer = settings
        # What this offer does not name was an earlier one's: it is not kept for ever.
        self._chunks = {digest: data for digest, data in self._chunks.items() if digest in named}
        self.held = sum(map(len, self._chunks.values()))
        self._room = sum(bundle.size for bundle in coming)
        missing = tuple(digest for digest in named if digest not in self._chunks)
        self._wanted = set(missing)
        return missing

    @staticmethod
    def _check(bundle: BundleOffer) -> None:
        if len(bundle.digest) != 32 or any(len(chunk) != 32 for chunk in bundle.chunks):
            raise _invalid("bundles and chunks are named by SHA-256 digests of 32 bytes")
        if not 0 < bundle.size <= MAX_BUNDLE:
            raise _invalid(f"a bundle has 1 to {MAX_BUNDLE} bytes, not {bundle.size}")
        if len(bundle.chunks) > bundle.size // 1024 + 1:
            raise _invalid("chunks have at least 1 KiB each")

    def chunk(self, data: bytes) -> None:
        """Take one chunk. Raises `CallError(INVALID)` on one that was not asked for: its bytes are not kept."""
        if len(data) > MAX_CHUNK:
            raise _invalid(f"a chunk has at most {MAX_CHUNK} bytes, this one has {len(data)}")
        digest = hashlib.sha256(data).digest()
        if digest not in self._wanted:
            raise _invalid(
                f"the chunk sha256:{digest.hex()} was not asked for: its bytes were changed on the way, or offer first"
            )
        if self.held + len(data) > self._room:
            raise _invalid(f"the chunks have more than the {self._room} bytes that the bundles were said to have")
        self._wanted.discard(digest)
        self._chunks[digest] = data
        self.held += len(data)

    def assemble(self) -> tuple[SettingsOffer, dict[bytes, bytes]]:
        """The offer and its bundles by digest. Raises `CallError` when something is missing or does not add up."""
        if self._offer is None:
            raise CallError(Code.CONFLICT, "nothing was offered: offer settings first, then activate")
        if self._wanted:
            raise CallError(Code.CONFLICT, f"{len(self._wanted)} chunks are still missing: send them, then activate")
        bundles: dict[bytes, bytes] = {}
        for bundle in self._offer.bundles:
            data = self._bundles.get(bundle.digest)
            if data is None:
                size = sum(len(self._chunks[chunk]) for chunk in bundle.chunks)
                if size != bundle.size:  # before they are joined: one chunk may be named many times
                    raise _invalid(f"bundle sha256:{bundle.digest.hex()}: {size} bytes came, {bundle.size} were said")
                data = b"".join(self._chunks[chunk] for chunk in bundle.chunks)
                if hashlib.sha256(data).digest() != bundle.digest:
                    raise _invalid(f"bundle sha256:{bundle.digest.hex()}: its chunks do not add up to that digest")
            bundles[bundle.digest] = data
        return self._offer, bundles

    def keep(self, bundles: dict[bytes, bytes]) -> None:
        """After an activation: keep these bundles whole, forget everything else."""
        self._bundles = dict(bundles)
        self._chunks.clear()
        self.held = 0
        self._wanted.clear()
        self._offer = None


def _invalid(sentence: str) -> CallError:
    return CallError(Code.INVALID, sentence)
