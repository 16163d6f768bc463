"""The slots of a deployment as this enclave sees them: which is its own, and what an attestation of another must meet.

May not: choose its own slot. It follows from PCR3 or PCR4, which the platform fills in.
Rule: docs/architecture.md, "Remote attestation of layer-1 state".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tea.trust import pcr
from tea.trust.policy import Policy
from tea.trust.roots import Roots

from .loader import LoadPlan

if TYPE_CHECKING:
    from .revisions import Revisions

PLATFORM_PCRS: Final = (0, 1, 2, 3, 4)


class Slots:
    """Slots by the manifest that runs or is being started."""

    def __init__(self, revisions: Revisions, own_pcrs: Mapping[int, bytes], *, simulated: bool) -> None:
        self._revisions = revisions
        self._own_pcrs: Final = own_pcrs
        self._simulated: Final = simulated
        self.root = b""
        """Digest of the root certificate of this enclave's own attestations; filled in before settings are taken."""

    @property
    def members(self) -> Mapping[str, Mapping[str, str]]:
        """Slots of the rounds: name -> {"pcr3" or "pcr4": hex}."""
        plan = self._revisions.loading or self._revisions.plan
        return plan.members if plan is not None else {}

    @property
    def own(self) -> str | None:
        """The slot whose PCR3 or PCR4 is this enclave's."""
        plan = self._revisions.loading or self._revisions.plan
        return self.own_in(plan) if plan is not None else None

    def own_in(self, plan: LoadPlan) -> str | None:
        """The slot that a plan gives this enclave."""
        for name, binding in plan.members.items():
            if binding and all(self._own_pcrs[_index(key)].hex() == value for key, value in binding.items()):
                return name
        return None

    def policy_for(self, slot: str) -> Policy:
        """What an attestation of this slot must meet: our roots, our image, our manifest, the slot's PCR.

        Raises `LookupError` for a slot that the manifest does not have.
        """
        plan = self._revisions.plan or self._revisions.loading
        if plan is None or slot not in plan.members:
            raise LookupError(f"no member {slot} in the manifest")
        pcrs = {index: (self._own_pcrs[index],) for index in pcr.IMAGE_PCRS}
        for key, value in plan.members[slot].items():
            pcrs[_index(key)] = (bytes.fromhex(value),)
        return Policy(
            pinned=Roots.from_digests([self.root]),
            simulated=self._simulated,
            pcrs=pcrs,
            deployment=plan.manifest.deployment,
            manifests=(plan.manifest_digest,),
            min_revision=plan.manifest.revision,
            min_epoch=plan.approvers.epoch,
            # An enclave in debug mode accepts its like: its own zero PCRs are what the slots must match.
            debug=not any(any(self._own_pcrs[index]) for index in pcr.IMAGE_PCRS),
        )


def _index(key: str) -> int:
    return int(key.removeprefix("pcr"))
