"""Records of real runs, with the numbers that a test is about."""

from dataclasses import replace

BETAS = (1.0, 2.0, 4.0)
REAL = {}  # mechanism to the record that a real run of it left; conftest.py fills it


def promise(mechanism, beta, epsilon=None):
    """What the run guaranteed, at another β."""
    real = REAL[mechanism].guarantee
    if mechanism == "none":
        return real
    if real.claim:
        return replace(real, claim=replace(real.claim, epsilon=1 / beta))
    return replace(real, epsilon=epsilon or 1 / beta)


def record(mechanism="dpsgd", beta=1.0, test=0.8, train=0.9, **changes):
    """A run of the mechanism, all of them in one set-up, without the counts of its images."""
    dataset, seed = changes.pop("dataset", "chest_xray"), changes.pop("seed", 42)
    real, setup = REAL[mechanism], REAL["ldp"].config
    values = {
        "run": f"{dataset}-{mechanism}-beta{beta:g}-seed{seed}",
        "config_digest": f"{dataset}{mechanism}{beta}{seed}",
        "config": {
            **real.config,
            **{key: setup[key] for key in ("model", "trainer", "max_grad_norm", "privacy")},
            "data": setup["data"] | {"name": dataset},
            "beta": beta,
            "seed": seed,
        },
        "data": None,
        "guarantee": promise(mechanism, beta),
        "metrics": {
            "test/accuracy": test,
            "test/auroc": 0.876,
            "nonprivate/train/accuracy": train,
            "nonprivate/train/auroc": 0.95,
        },
    }
    return real.model_copy(update=values | changes)


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
            metrics = {"nonprivate/expected_blank_share": 0.5, "nonprivate/majority_share": 0.75}
            picked = {"selected_on_test/accuracy": 0.7375, "selected_on_test/epoch": 3.0}
            update = {"metrics": one.metrics | picked}
            if mechanism == "ldp_published":
                update["mechanism"] = one.mechanism | metrics
            records.append(one.model_copy(update=update))
    return records
