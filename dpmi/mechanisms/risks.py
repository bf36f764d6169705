"""What an attacker can do about what a mechanism has executed."""

from __future__ import annotations

from dpmi.mechanisms.base import Mechanism
from dpmi.mechanisms.planned import PlannedMechanism
from dpmi.privacy.risk import Risk, patient_risk, risks


def risks_of(mechanism: Mechanism) -> tuple[Risk, ...]:
    """Of its guarantee, and of the releases that the guarantee is of; it takes a second."""
    entries = mechanism.released if isinstance(mechanism, PlannedMechanism) else ()
    return risks(mechanism.guarantee(), entries)


def patient_risk_of(mechanism: Mechanism) -> Risk | None:
    """Of the patient with the most images, by the same releases; None under local DP."""
    if not isinstance(mechanism, PlannedMechanism):
        return None
    return patient_risk(mechanism.guarantee(), mechanism.released)
