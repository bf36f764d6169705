"""The last stage: the weights, with what is known of what was taken for them."""

from __future__ import annotations

from dpmi.mechanisms import Mechanism
from dpmi.models.weights import write_state_dict
from dpmi.run.first_weights import WEIGHTS_FILE
from dpmi.run.records.entry import RunEntry
from dpmi.run.stages.context import Context
from dpmi.run.stages.images import Inputs
from dpmi.run.stages.training import Learner


def save(
    context: Context, learner: Learner, inputs: Inputs, mechanism: Mechanism, entry: RunEntry
) -> None:
    """Write the weights, for others to start from; the first process does.

    Raises:
        OSError: they cannot be written.
    """
    if not context.ranks.is_first:
        return
    with context.timed("save"):
        features = inputs.features
        provenance = inputs.start.provenance(
            *(mechanism.guarantee(), *entry.taken(mechanism), learner.model.classes),
            frozen=features is not None,
        )
        kept = learner.model.net.exported() | (features.public if features else {})
        write_state_dict(kept, context.folder / WEIGHTS_FILE, provenance)
