"""Lets each actor's test import its actor by name, as it does where that folder is all there is.

May not: hold fixtures; an actor's folder must work when it is copied elsewhere. Rule: CONTRIBUTING.md, "An actor".
"""

import sys
from pathlib import Path

sys.path.extend(str(manifest.parent) for manifest in sorted(Path(__file__).parent.glob("*/bundle.yaml")))
