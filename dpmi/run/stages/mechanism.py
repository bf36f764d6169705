"""The stages that spend: what is taken is in the account ahead of its release."""

from __future__ import annotations

from dpmi.data.prepare import PreparedData
from dpmi.mechanisms import DPSGD, LocalDP, LocalDPOfFeatures, Mechanism, build_mechanism
from dpmi.mechanisms.base import FirstWeights
from dpmi.run.durability.resume import Resumption
from dpmi.run.records.entry import RunEntry
from dpmi.run.stages.context import Context
from dpmi.run.stages.images import Inputs, Protected


def begin(context: Context, data: PreparedData, inputs: Inputs) -> Resumption:
    """Draw the key of the noise, or go on where a killed process was.

    Raises:
        UserError: the state in the folder cannot be read.
    """
    config, sha256, ranks = context.config, data.fingerprint.sha256, context.ranks
    return ranks.from_first(
        lambda: Resumption(
            *(context.folder, config, sha256, context.device, inputs.digest, context.console),
            processes=ranks.size,
        )
    )


def taken_before(
    context: Context, entry: RunEntry, images: Protected, inputs: Inputs
) -> FirstWeights:
    """What the weights to start from took of the same images, which is entered with the run's.

    Raises:
        UserError: their ε cannot be added to the run's.
    """
    mechanism = context.config.mechanism.name
    first = inputs.start.first_weights(entry.accounts(), mechanism, images.unit)
    entry.before = first.taken
    return first


def build(
    context: Context,
    images: Protected,
    inputs: Inputs,
    first: FirstWeights,
    begun: Resumption,
    entry: RunEntry,
) -> Mechanism:
    """Plan the run's releases; nothing is released yet.

    Raises:
        UserError: no plan fits, or it would pass a budget.
    """
    writes = context.ranks.is_first
    built = build_mechanism(
        context.config,
        inputs.train.n,
        begun.noise,
        begun.journal if writes else None,
        begun.piece,
        context.ranks,
        images.together,
        entry.reserve_release if writes else None,
        first,
        inputs.train,
        images.unit,
        inputs.features.drawn if inputs.features else None,
    )
    own, walk = context.config.learning_rate, context.config.noise_walk
    if writes and isinstance(built, DPSGD) and built.learning_rate < own:
        assert walk is not None
        context.console.print(
            f"learning rate {built.learning_rate:.2g} in place of {own:g}: "
            f"mechanism.noise_walk={walk:g}",
            markup=False,
        )
    return built


def reserve(context: Context, entry: RunEntry, mechanism: Mechanism, begun: Resumption) -> None:
    """Return only when the account has all that the run may take.

    Raises:
        UserError: a budget of all runs would be passed; nothing may be released then.
        OSError: the account cannot be written; nothing may be released then.
    """
    context.ranks.from_first(lambda: entry.reserve(mechanism, begun.lost))


def release(
    context: Context, mechanism: Mechanism, images: Protected, begun: Resumption
) -> PreparedData:
    """Let the mechanism say what training may see of the images.

    Raises:
        UserError: a budget would be passed, or an earlier attempt trained on another release.
    """
    with context.timed("release"):
        released = mechanism.release_data(images.data)
    if isinstance(mechanism, LocalDP | LocalDPOfFeatures) and context.ranks.is_first:
        begun.keep_release(mechanism.release_id)
    return released
