"""Local differential privacy of whole images: one randomized bit of an image's features."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpmi.data.batches import Batches
from dpmi.data.pixel_store import PixelWriter, stored_pixels
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms.base import COUNTED, EVALUATED, NO_GROUPS, PUBLIC_WEIGHTS, FirstWeights
from dpmi.mechanisms.interview import VERSION, ClassEstimate, class_part, interview
from dpmi.mechanisms.ldp import Announce
from dpmi.models.discriminant import discriminant
from dpmi.models.gradient import Gradient
from dpmi.models.head import FeatureHead
from dpmi.privacy.guarantee import REPEATABLE, STRICTER_DELTAS, Group, Guarantee, printed_delta
from dpmi.privacy.one_bit import Question, RandomizedResponse, Respondents, Values
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.statistics import TrainingSet

_KEY_STEPS = 2.0**16  # vectors that differ by rounding alone are the same images' vectors


@dataclass(frozen=True)
class Answers:
    """The answers of all images.

    Attributes:
        bits: (n,), of each image one.
        id: random, of this release and no other; None where it can be repeated.
        made: by this call, not found.
    """

    bits: NDArray[np.bool_]
    id: str | None
    made: bool


class LocalDPOfFeatures:
    """Each image says one bit of its features and its label, once (``privacy.one_bit``).

    Contract: for any two images, whatever their labels, the probability of all that is released
    differs by a factor of at most e^(1/β), δ = 0: image-level local DP under replace-one adjacency.
    Where a patient is what is protected, each patient says one bit, of the mean of the features of
    their images and of the label that most of them have: the same holds for any two patients.
    The proof is in ``privacy.one_bit``. The classifier (``mechanisms.interview``, then linear
    discriminant analysis) is computed from the answers, public randomness and public images alone.

    The answers are one release for all runs on the same vectors, labels and β, kept in
    ``cache_dir/releases``, unless they can be repeated: then they are this run's own.

    Args:
        beta: 1/ε.
        train: features and labels of the training images.
        noise: says whether the answers can be repeated, and then is where they come from.
        cache_dir: where releases are kept.
        uniform: decide under a uniform prior, by the shares estimated from the answers.
        drawn: vectors and labels of public images of the same classes, which are what the answers
            are expected to say; None: nothing is expected.
        together: training images that belong to one, by the name of what they have in common.
        announce: called before the release is made or used.
        first: the weights before training: other releases that they were trained on are in ε.

    Raises:
        ValueError: no randomized response of this ``beta`` can be executed.
    """

    name = "ldp_features"

    def __init__(
        self,
        beta: float,
        train: TrainingSet,
        noise: NoiseSource,
        cache_dir: Path,
        *,
        uniform: bool,
        drawn: tuple[Tensor, Tensor] | None = None,
        together: Mapping[str, int] = NO_GROUPS,
        announce: Announce | None = None,
        first: FirstWeights = PUBLIC_WEIGHTS,
    ) -> None:
        if train.vectors is None:
            raise ValueError("answers are about features: give model.train=head")
        self._unit = "image" if train.patients is None else "patient"
        train = train if train.patients is None else train.of_patients()
        assert train.vectors is not None
        self._beta, self._response = beta, RandomizedResponse(beta)
        self._vectors = train.vectors.double().numpy()
        self._labels, self._classes = train.labels.numpy(), train.num_classes
        self._noise, self._cache_dir, self._uniform = noise, cache_dir, uniform
        self._expected = None if drawn is None else _class_part(*drawn, train.num_classes)
        self._together, self._announce, self._first = together, announce, first
        self._answers: Answers | None = None

    @property
    def release_id(self) -> str | None:
        """Of the answers, the same in all runs that use them; None before there are any."""
        return self._answers.id if self._answers else None

    def release_data(self, data: PreparedData) -> PreparedData:
        """Ask the images, or find their answers; the images stay where they are, and as they are.

        Raises:
            RuntimeError: called a second time.
            UserError: the answers cannot be kept.
        """
        if self._answers is not None:
            raise RuntimeError("the images of this run were already asked")
        if self._noise.reproducible:
            self._answers = Answers(self._ask_all(self._noise), None, made=True)
        else:
            self._answers = self._shared()
        return data

    def _ask_all(self, noise: NoiseSource) -> NDArray[np.bool_]:
        """Put the questions to the images themselves, and keep what they say."""
        bits = np.zeros(len(self._labels), np.bool_)
        respondents = Respondents(
            self._vectors, self._labels, self._response, noise.stream("answer")
        )

        def ask(question: Question) -> NDArray[np.bool_]:
            bits[question.rows] = answers = respondents(question)
            return answers

        self._interview(ask)
        return bits

    def _interview(self, ask: Callable[[Question], NDArray[np.bool_]]) -> ClassEstimate:
        n, dimensions = self._vectors.shape
        bias = self._response.bias
        return interview(n, dimensions, self._classes, bias, ask, self._expected)

    def _shared(self) -> Answers:
        """The answers that are there, or else new ones, under a key that is written nowhere."""

        def write(writer: PixelWriter) -> dict[str, Any]:
            name = secrets.token_hex(8)
            self._tell(name)
            bits = self._ask_all(NoiseSource(None))
            writer.add(bits.astype(np.uint8).tobytes(), len(bits))
            return {"id": name}

        found = stored_pixels(
            self._cache_dir / "releases" / self._key(),
            write,
            (len(self._labels), 1, 1, 1),  # a bit an image, kept as pixels are
            verb="asked",
            again="its images were asked again: a second release, whose ε adds to the first one's",
        )
        if not found.made:
            self._tell(found.facts["id"])
        bits = np.asarray(found.pixels).reshape(-1).astype(np.bool_)
        return Answers(bits, found.facts["id"], found.made)

    def _key(self) -> str:
        """Of what is asked of whom: vectors, labels and β."""
        parts = ["answers", VERSION, self._vectors.shape, self._classes, float(self._beta)]
        digest = hashlib.sha256(json.dumps(parts).encode())
        digest.update(np.rint(self._vectors * _KEY_STEPS).astype(np.int32).tobytes())
        digest.update(self._labels.astype(np.int64).tobytes())
        return digest.hexdigest()[:32]

    def _tell(self, release: str) -> None:
        if self._announce:  # who hides an image hides each value of it
            self._announce(release, 1 / self._beta, 1 / self._beta, self._unit)

    def train_batches(self) -> Batches | None:
        """Shuffled batches, which nothing is learned from."""
        return None

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> Gradient:
        """Set the head from the answers, and return what leaves it as it is.

        Raises:
            RuntimeError: the images were not asked.
            ValueError: no head.
        """
        if self._answers is None:
            raise RuntimeError("the images were not asked yet")
        if not isinstance(net, FeatureHead):
            raise ValueError("answers are about features: give model.train=head")
        bits = self._answers.bits
        self._set_head(net, self._interview(lambda question: bits[question.rows]))
        return _NothingToLearn(net)

    def _set_head(self, net: FeatureHead, estimate: ClassEstimate) -> None:
        sums, shares = torch.from_numpy(estimate.sums), torch.from_numpy(estimate.shares)
        n = len(self._labels)
        # Shares are bounded below already: no noise of theirs is left to guard against.
        weight, bias = discriminant(n * sums, n * shares, n * estimate.sum_std, count_std=0.0)
        net.centre.copy_(torch.from_numpy(estimate.centre))
        net.set_weights(weight, bias)
        if self._uniform:
            net.set_class_counts(n * shares)

    def settle(self, net: nn.Module, logits: Tensor) -> None:
        """Nothing: discriminant analysis has decided midway."""

    def spent(self) -> tuple[float, str] | None:
        """ε = 1/β, of an image."""
        if self._answers is None or self._noise.reproducible:
            return None
        return 1 / self._beta, self._unit

    def guarantee(self) -> Guarantee:
        """ε = 1/β for an image and its label, or for a patient, replaced by any other."""
        if self._answers is None:
            return Guarantee.none(self.name, "the images were not asked yet")
        if self._noise.reproducible:
            return Guarantee.none(self.name, REPEATABLE)
        before = [took for took in self._first.taken if took.entry != self.release_id]
        epsilon = 1 / self._beta + sum(took.image_epsilon or 0.0 for took in before)
        return Guarantee(
            mechanism=self.name,
            epsilon=epsilon,
            delta=0.0,
            unit=self._unit,
            adjacency="replace-one",
            accountant="randomized response: log of the odds of the truth",
            epsilons={printed_delta(delta): epsilon for delta in STRICTER_DELTAS},  # at any δ
            replace_one_epsilon=epsilon,
            private={
                name: Group(images, images * epsilon) for name, images in self._together.items()
            },
            assumptions=(
                *self._whose(),
                f"the number of {self._unit}s and the order in which they are asked are not "
                f"protected; the number is {COUNTED}",
                f"who runs the training is trusted to ask each {self._unit} once; who receives the "
                "answers is not trusted",
                *self._first.assumptions,
                EVALUATED,
                "the key that decides who lies came from the operating system, for this release "
                "alone, and was written nowhere",
                "the probability of a lie is a whole number of 2^-64, rounded up",
            ),
        )

    def _whose(self) -> tuple[str, str]:
        """What is protected with a unit, and what a unit is not."""
        if self._unit == "patient":
            return (
                "the labels of a patient's images are protected with them",
                "ε is that of one patient with all their training images; one who goes by several "
                "names, or whose image others have too, has as many times over",
            )
        return (
            "an image's label is protected with it",
            "ε is that of one image; a patient with several, or an image with copies in the "
            "training set, has as many times over",
        )

    def describe(self) -> dict[str, Any]:
        """Return which release was used, and whether this run made it or found it."""
        if self._answers is None or self._answers.id is None:
            return {}
        return {"release": self._answers.id, "release_made_by_this_run": self._answers.made}


def _class_part(vectors: Tensor, labels: Tensor, classes: int) -> Values:
    return class_part(vectors.double().numpy(), labels.numpy(), classes)


class _NothingToLearn:
    """Stands where a gradient does: leaves nothing to the optimizer."""

    def __init__(self, net: FeatureHead) -> None:
        self._net = net

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return detached logits of a batch."""
        for parameter in self._net.parameters():
            parameter.grad = None
        with torch.no_grad():
            logits: Tensor = self._net(images)
        return logits
