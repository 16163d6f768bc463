"""The sdk's version, which a bundle's claims name a range of. SemVer: a break of an actor's imports raises the first.

May not: import anything. Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from typing import Final

SDK_VERSION: Final = "0.1.0"
