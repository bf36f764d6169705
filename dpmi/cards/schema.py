"""What a card holds, and how it becomes bytes that can be compared.

Contents in the order of the pyramid of NIST SP 800-226 ("Guidelines for Evaluating Differential
Privacy Guarantees", 2025), the direct measures first and what they rest on after, with what a model
card has beside (Mitchell et al. 2019, "Model Cards for Model Reporting", arXiv 1810.03993).
"""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dpmi.run.records.public import PublicRecord

SCHEMA, VERSION = "dpmi.card", 3
FILES = {"html": "card.html", "md": "card.md", "json": "card.json"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class WeightsFile(_Part):
    """The checkpoint that the card is of.

    Attributes:
        name: of the file.
        size: in bytes.
        sha256: of the whole file, in hexadecimal.
    """

    name: str
    size: int
    sha256: str


class Others(_Part):
    """What all runs have taken from the same training images, by their account.

    Attributes:
        account: its random name, also in the metadata of the weights file.
        at: when it was read, in UTC.
        runs: entries that count, this run's among them.
        says: the total, a clause for each kind of release; empty where nothing was released.
        epsilon: of ``unit`` at ``delta``, by all together; None where no ε holds for the whole.
    """

    account: str
    at: str
    runs: int
    says: tuple[str, ...]
    epsilon: float | None
    delta: float
    unit: str


class Share(_Part):
    """A share of the test images that were decided rightly, and its 95 % interval (Wilson 1927)."""

    metric: str
    value: float
    low: float
    high: float
    images: int


class Card(_Part):
    """A checkpoint's card: all that ``card.json`` holds, and all that the pages are made of.

    Attributes:
        schema_name, version: what this file is; whoever changes a page or a field raises it.
        made: when, in UTC.
        trust: who need not be trusted: "central", nobody but the readers of what is released;
            "local", whoever receives what leaves an image; "none", where no ε holds.
        mechanism, sensitivity: in a sentence each; follow from the config.
        record: the public record of the run, and nothing of the private one but what
            ``ledger_by_choice`` says.
        ledger_by_choice: the images are a user's own, who chose to let plan and ledger leave,
            which reveal the batch size.
        weights: the file.
        others: None where the account was not at hand: then what else was released is not known.
        shares: accuracies with their intervals.
        intended_use: by who made the card.
        limits: of every card.
        digest: SHA-256 of this content with an empty ``digest``.
    """

    schema_name: Literal["dpmi.card"] = "dpmi.card"
    version: Literal[3] = 3
    made: str
    trust: Literal["central", "local", "none"]
    mechanism: str
    sensitivity: str | None
    record: PublicRecord
    ledger_by_choice: bool
    weights: WeightsFile
    others: Others | None
    shares: tuple[Share, ...]
    intended_use: str
    limits: tuple[str, ...]
    digest: str = ""

    def as_json(self) -> str:
        """The one way in which it is written."""
        return self.model_dump_json(indent=1) + "\n"

    def digest_of_content(self) -> str:
        """What ``digest`` must be."""
        content = self.model_copy(update={"digest": ""}).as_json()
        return hashlib.sha256(content.encode()).hexdigest()

    def sealed(self) -> Card:
        """The card with its digest."""
        return self.model_copy(update={"digest": self.digest_of_content()})
