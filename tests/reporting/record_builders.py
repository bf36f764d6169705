"""Records as runs would leave them."""

from dpmi.privacy.guarantee import Claim, Guarantee
from dpmi.run.record import RunRecord

BETAS = (1.0, 2.0, 4.0)


def promise(mechanism, beta, epsilon=None):
    if mechanism == "none":
        return Guarantee.none("none", "trained on the images without any mechanism")
    if mechanism.endswith("_published"):
        claim = Claim(1 / beta, 1e-4, "image", "the poster's authors")
        return Guarantee.none(mechanism, "nothing bounds it", claim)
    unit, delta = ("pixel", 0.0) if mechanism == "ldp" else ("image", 1e-4)
    return Guarantee(mechanism, epsilon or 1 / beta, delta, unit, "zero-out", "prv")


def record(mechanism="dpsgd", beta=1.0, test=0.8, train=0.9, **changes):
    dataset, seed = changes.pop("dataset", "chest_xray"), changes.pop("seed", 42)
    values = {
        "run": f"{dataset}-{mechanism}-beta{beta:g}-seed{seed}",
        "config_digest": f"{dataset}{mechanism}{beta}{seed}",
        "status": "completed",
        "reason": None,
        "config": {
            "seed": seed,
            "beta": beta,
            "data": {"name": dataset},
            "mechanism": {"name": mechanism},
        },
        "data": None,
        "guarantee": promise(mechanism, beta),
        "stopped": None,
        "restarts": 0,
        "mechanism": {},
        "metrics": {
            "test/accuracy": test,
            "test/auroc": 0.876,
            "nonprivate/train/accuracy": train,
            "nonprivate/train/auroc": 0.95,
        },
        "curves": {},
        "sample": None,
        "timings": {},
        "peak_memory_mb": None,
        "environment": {},
    }
    return RunRecord(**(values | changes))


def failed(reason="no images at data.root=x", **changes):
    return record(status="failed", reason=reason, metrics={}, guarantee=None, **changes)


def seven(dataset="chest_xray"):
    cells = [(mechanism, beta) for mechanism in ("ldp", "dpsgd") for beta in BETAS]
    return [
        record(mechanism, beta, test=0.8123, train=0.9, dataset=dataset)
        for mechanism, beta in [("none", 1.0), *cells]
    ]


def published(dataset="chest_xray"):
    """The original and the authors' six cells."""
    records = [record("none", 1.0, test=0.8, train=0.95, dataset=dataset)]
    for mechanism in ("ldp_published", "dpsgd_published"):
        for beta in BETAS:
            one = record(mechanism, beta, test=0.7125, train=0.75, dataset=dataset)
            told = {"nonprivate/expected_blank_share": 0.5, "nonprivate/majority_share": 0.75}
            one = one.model_copy(
                update={
                    "mechanism": told if mechanism == "ldp_published" else {},
                    "metrics": one.metrics
                    | {"selected_on_test/accuracy": 0.7375, "selected_on_test/epoch": 3.0},
                }
            )
            records.append(one)
    return records
