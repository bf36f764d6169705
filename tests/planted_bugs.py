"""The bugs that are planted, and the tests that catch them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Planted:
    """One bug.

    Attributes:
        name: what is broken, in a few words.
        file: where.
        code: what stands there, once.
        planted: what is put in its place.
        caught_by: tests of which one must fail.
    """

    name: str
    file: str
    code: str
    planted: str
    caught_by: tuple[str, ...]


_GRADIENTS = "tests/privacy/test_gradients.py"
_BOOKKEEPING = "tests/privacy/engines/test_bookkeeping.py"
_WIRING = "tests/run/test_wiring.py"
_CALLBACK = "tests/run/test_privacy_callback.py"

CLIPPING = (
    Planted(
        "gradients are not clipped",
        "dpmi/privacy/engines/clipping.py",
        "(max_grad_norm / (norms + _ROUNDING)).clamp(max=1.0)",
        "torch.ones_like(norms)",
        (_GRADIENTS,),
    ),
    Planted(
        "small gradients are scaled up to the bound",
        "dpmi/privacy/engines/clipping.py",
        "(max_grad_norm / (norms + _ROUNDING)).clamp(max=1.0)",
        "max_grad_norm / (norms + _ROUNDING)",
        (_GRADIENTS,),
    ),
    Planted(
        "the bound is one for each layer, not for all together",
        "dpmi/privacy/engines/bookkeeping.py",
        "norms = torch.stack(squares).sum(0).sqrt()",
        "norms = torch.stack(squares).amax(0).sqrt()",
        (_GRADIENTS,),
    ),
    Planted(
        "a gradient that is not finite is added",
        "dpmi/privacy/engines/clipping.py",
        "return torch.where(finite, factors, torch.zeros_like(factors)), finite",
        "return factors, None",
        (_GRADIENTS,),
    ),
    Planted(
        "a norm layer's weights are left out of the norm",
        "dpmi/privacy/engines/rules.py",
        "self.squared_norms = torch.stack(squares).sum(0)",
        "self.squared_norms = squares[0]",
        (_GRADIENTS, _BOOKKEEPING),
    ),
    Planted(
        "a bias is left out of the norm",
        "dpmi/privacy/engines/rules.py",
        "            total = total + square\n",
        "            total = total\n",
        (_GRADIENTS, _BOOKKEEPING),
    ),
    Planted(
        "a shift of a Gram matrix is forgotten",
        "dpmi/privacy/engines/convolution.py",
        "for h in range(-pad_h, kh * dh - pad_h, dh):",
        "for h in range(-pad_h, kh * dh - pad_h - (kh > 1) * dh, dh):",
        (_BOOKKEEPING,),
    ),
    Planted(
        "the sum is made in the precision of the passes",
        "dpmi/privacy/engines/convolution.py",
        "x, grad_output, bias = self.x.float(), self.grad_output.float(), self.bias",
        "x, grad_output, bias = self.x, self.grad_output, self.bias",
        ("tests/privacy/engines/test_precision.py",),
    ),
    Planted(
        "Opacus' hooks leave the plain gradient behind",
        "dpmi/privacy/engines/opacus_hooks.py",
        "            parameter.grad = None  # the plain gradient, made in passing\n",
        "            sums[parameter] += parameter.grad * scale\n            parameter.grad = None\n",
        (_GRADIENTS,),
    ),
    Planted(
        "the loss is a mean over the piece: later pieces weigh more",
        "dpmi/privacy/engines/bookkeeping.py",
        'reduction="sum").backward()',
        'reduction="mean").backward()',
        (_GRADIENTS,),
    ),
    Planted(
        "BatchNorm is let in",
        "dpmi/privacy/gradients.py",
        "        if isinstance(layer, _BatchNorm):\n            raise",
        "        if isinstance(layer, _BatchNorm) and layer is None:\n            raise",
        (_GRADIENTS,),
    ),
)

EXECUTION = (
    Planted(
        "a job is built without its privacy callback",
        "dpmi/run/job.py",
        "            callbacks.append(self._privacy)\n",
        "            pass\n",
        (_WIRING,),
    ),
    Planted(
        "a step is not put on the ledger",
        "dpmi/privacy/gradients.py",
        "        self.ledger.record(plan.noise_multiplier, plan.sample_rate)\n",
        "        if step % 2:\n            self.ledger.record(plan.noise_multiplier, plan.sample_rate)\n",
        (_CALLBACK, _GRADIENTS),
    ),
    Planted(
        "another sampler than the plan's is let in",
        "dpmi/run/privacy_callback.py",
        "if not isinstance(batches, PoissonBatches) or batches.plan != self._plan:",
        "if batches is None:",
        (_CALLBACK,),
    ),
    Planted(
        "more steps than planned are let in",
        "dpmi/run/privacy_callback.py",
        "        if self._mechanism.taken >= self._plan.steps:\n",
        "        if self._mechanism.taken >= 2 * self._plan.steps:\n",
        (_CALLBACK,),
    ),
    Planted(
        "BatchNorm switched to training in mid-run is let in",
        "dpmi/run/privacy_callback.py",
        "            if isinstance(layer, _BatchNorm) and layer.training:\n",
        "            if isinstance(layer, _BatchNorm) and not batch_idx and layer.training:\n",
        (_CALLBACK,),
    ),
    Planted(
        "gradient accumulation is let in",
        "dpmi/run/privacy_callback.py",
        "if trainer.accumulate_grad_batches != 1:",
        "if trainer.accumulate_grad_batches < 1:",
        (_CALLBACK,),
    ),
    Planted(
        "lost steps are not counted",
        "dpmi/privacy/ledger.py",
        "        self.record(entry.noise_multiplier, entry.sample_rate, entry.steps)\n",
        "",
        ("tests/run/test_resume.py", "tests/privacy/test_plan_and_ledger.py", _CALLBACK),
    ),
    Planted(
        "a step is written down after it was released",
        "dpmi/privacy/gradients.py",
        "        plan, step = self.plan, self._step\n        self._write_ahead()\n",
        "        plan, step = self.plan, self._step\n",
        ("tests/privacy/test_journal.py",),
    ),
    Planted(
        "the journal is not flushed to the disk",
        "dpmi/privacy/journal.py",
        "            os.fsync(descriptor)\n        finally:\n            os.close(descriptor)\n        if is_new:",
        "            pass\n        finally:\n            os.close(descriptor)\n        if is_new:",
        ("tests/privacy/test_journal.py",),
    ),
    Planted(
        "each of two processes adds the noise",
        "dpmi/privacy/gradients.py",
        "        if self._ranks.is_first:\n",
        "        if self._ranks is not None:\n",
        ("tests/privacy/test_ranks.py",),
    ),
    Planted(
        "each process takes the whole batch",
        "dpmi/ranks.py",
        "return whole[self.rank :: self.size]",
        "return whole",
        ("tests/privacy/test_ranks.py", "tests/data/test_batches.py"),
    ),
)
