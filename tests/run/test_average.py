import pytest
import pytorch_lightning as L
import torch
from torch import nn

from dpmi.data.datamodule import ImageDataModule
from dpmi.models.classifier import ImageClassifier
from dpmi.models.gradient import MeanGradient
from dpmi.models.prior import DecidingNetwork
from dpmi.run.average import IterateAverage

EPOCHS, STEPS = 4, 12


class Small(DecidingNetwork):
    """With a BatchNorm, whose statistics training changes, and a layer that it does not."""

    def __init__(self):
        super().__init__(2)
        self.pool, self.norm = nn.AvgPool2d(8), nn.BatchNorm1d(16)
        self.head, self.frozen = nn.Linear(16, 2), nn.Linear(2, 2).requires_grad_(False)

    def forward(self, images):
        return self.decided(self.frozen(self.head(self.norm(self.pool(images).flatten(1)))))

    def exported(self):
        return self.state_dict()


class Iterates(L.Callback):
    """The weights after each step, and the learning rate that was taken to them."""

    def __init__(self):
        self.states, self.rates = [], []

    def on_train_batch_start(self, trainer, *_):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.states.append({k: v.detach().clone() for k, v in pl_module.net.state_dict().items()})


@pytest.fixture
def trained(stripes):
    """A model trained on a schedule, the callback, and all of its iterates."""
    data = stripes(train=60)
    model = ImageClassifier(
        Small(),
        classes=data.classes,
        graded=False,
        make_gradient=lambda net, step: MeanGradient(net),
        learning_rate=0.5,
        weight_decay=0.0,
        momentum=0.9,
        schedule="cosine",
    )
    module = ImageDataModule(
        data, image_size=32, batch_size=20, augment="none", num_workers=0, seed=0
    )
    average, iterates = IterateAverage(), Iterates()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[average, iterates],
    )
    trainer.fit(model, module)
    return model, average, iterates


def test_the_mean_is_of_the_weights_after_the_later_half_of_the_steps(trained):
    model, average, iterates = trained
    assert len(iterates.states) == STEPS
    average.apply(model)
    kept = model.net.state_dict()
    for name in ("head.weight", "head.bias", "norm.weight", "norm.running_mean"):
        later = torch.stack([state[name] for state in iterates.states[STEPS // 2 :]])
        assert torch.allclose(kept[name], later.mean(0), atol=1e-6), name
        assert not torch.equal(kept[name], iterates.states[-1][name])
    assert torch.equal(kept["frozen.weight"], iterates.states[0]["frozen.weight"])


def test_the_mean_is_taken_on_the_schedule_whose_end_is_that_of_the_run(trained):
    _, _, iterates = trained
    assert iterates.rates.index(max(iterates.rates)) == round(STEPS / 10)
    assert max(iterates.rates) == pytest.approx(0.5)
    assert iterates.rates[-1] < 0.02


def test_of_a_run_that_ended_before_its_later_half_the_last_weights_are_kept(trained):
    model, _, iterates = trained
    IterateAverage().apply(model)
    assert torch.equal(model.net.head.weight, iterates.states[-1]["head.weight"])
