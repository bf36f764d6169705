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
        "            sums[parameter] += parameter.grad * scale\n"
        "            parameter.grad = None\n",
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
        "        if step % 2:\n"
        "            self.ledger.record(plan.noise_multiplier, plan.sample_rate)\n",
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
        "            os.fsync(descriptor)\n        finally:\n            os.close(descriptor)\n"
        "        if is_new:",
        "            pass\n        finally:\n            os.close(descriptor)\n        if is_new:",
        ("tests/privacy/test_journal.py",),
    ),
    Planted(
        "noise is added before the processes' sums are: once for each",
        "dpmi/privacy/gradients.py",
        "        if self._ranks.size > 1:\n            self._add_up_ranks()\n",
        "        if self._ranks.size > 1:\n"
        "            self._noise.release(self._buffer, self._law, 1.0, step)\n"
        "            self._add_up_ranks()\n",
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

_NOISE = "tests/privacy/test_noise.py"
_LATTICE = "tests/privacy/test_lattice.py"
_LATTICE_RELEASE = "tests/privacy/test_lattice_release.py"
_RANDOMNESS = "tests/privacy/test_randomness.py"
_SAMPLING = "tests/privacy/test_sampling.py"

NOISE = (
    Planted(
        "no noise is added",
        "dpmi/privacy/noise.py",
        "                    wide += noise[start : start + len(block)]\n",
        "",
        (_NOISE, _WIRING),
    ),
    Planted(
        "the noise is cut off at three standard deviations",
        "dpmi/privacy/noise.py",
        "                law.draw(stream, noise[: len(values)])\n",
        "                law.draw(stream, noise[: len(values)])\n"
        "                np.clip(noise, -int(3 * law.std), int(3 * law.std), out=noise)\n",
        (_WIRING,),
    ),
    Planted(
        "the noise is a fifth too small",
        "dpmi/privacy/gradients.py",
        "return lattice_gaussian(plan.noise_std / step)",
        "return lattice_gaussian(0.8 * plan.noise_std / step)",
        (_GRADIENTS, _WIRING),
    ),
    Planted(
        "the noise is scaled by the clip norm, not by the sensitivity",
        "dpmi/privacy/plan.py",
        "return self.noise_multiplier * self.sensitivity",
        "return self.noise_multiplier * self.max_grad_norm",
        (_LATTICE_RELEASE, "tests/privacy/test_plan_and_ledger.py", _GRADIENTS),
    ),
    Planted(
        "every step has the same noise",
        "dpmi/privacy/noise.py",
        'self._source.stream("gradient", step)',
        'self._source.stream("gradient", 0)',
        (_NOISE, _WIRING),
    ),
    Planted(
        "every part of a release has the same noise",
        "dpmi/privacy/noise.py",
        'self._source.stream("gradient", step).spawn(len(starts))',
        '[self._source.stream("gradient", step) for _ in starts]',
        (_NOISE, _WIRING),
    ),
    Planted(
        "sampling and noise come from one stream",
        "dpmi/privacy/noise.py",
        'self._source.stream("gradient", step).spawn(len(starts))',
        '[self._source.stream("sampling", step), *self._source.stream("gradient", step)'
        ".spawn(len(starts) - 1)]",
        (_WIRING,),
    ),
    Planted(
        "a resumed attempt that cannot repeat its steps has the same noise",
        "dpmi/privacy/randomness.py",
        'attempt = 0 if purpose.startswith("laplace") else self.attempt',
        "attempt = 0",
        (_NOISE, _RANDOMNESS),
    ),
    Planted(
        "the key has 32 bits",
        "dpmi/privacy/randomness.py",
        "return secrets.token_bytes(KEY_BYTES)",
        "return secrets.token_bytes(4) * 8",
        (_RANDOMNESS,),
    ),
    Planted(
        "the counter of a stream begins anew at each call",
        "dpmi/privacy/randomness.py",
        "    @cached_property\n    def _cipher",
        "    @property\n    def _cipher",
        (_RANDOMNESS,),
    ),
    Planted(
        "the sum is not rounded to the lattice",
        "dpmi/privacy/noise.py",
        "                    np.rint(block, out=block)\n",
        "",
        (_LATTICE_RELEASE, _NOISE),
    ),
    Planted(
        "the lattice is coarser than the plan allows",
        "dpmi/privacy/gradients.py",
        "plan.max_grad_norm * ROUNDING / 2 / math.sqrt(size)",
        "plan.max_grad_norm * ROUNDING",
        (_LATTICE_RELEASE,),
    ),
    Planted(
        "a δ that the noise's end does not allow is let in",
        "dpmi/privacy/gradients.py",
        "    if plan.delta < least:\n",
        "    if plan.delta < 0:\n",
        (_LATTICE_RELEASE,),
    ),
    Planted(
        "the tails of the lattice Gaussian are too thin",
        "dpmi/privacy/lattice.py",
        "rest = self._mass(n) - self._under[found]",
        "rest = (self._mass(n) - self._under[found]) * (abs(n) < 4 * self.std)",
        (_LATTICE,),
    ),
    Planted(
        "the sum is divided by the batch's own size",
        "dpmi/privacy/gradients.py",
        "unit = self._lattice_step / plan.expected_batch_size",
        "unit = self._lattice_step / max(1, len(labels))",
        (_GRADIENTS, _WIRING),
    ),
    Planted(
        "noise is added once for each piece",
        "dpmi/privacy/gradients.py",
        "        self._noise.release(self._buffer, self._law, unit, step)\n",
        "        for _ in range(max(1, -(-len(labels) // self.physical_batch_size))):\n"
        "            self._noise.release(self._buffer, self._law, unit, step)\n"
        "            unit = 1.0\n",
        (_GRADIENTS, _WIRING),
    ),
    Planted(
        "an empty batch gets no noise",
        "dpmi/privacy/gradients.py",
        "        self._noise.release(self._buffer, self._law, unit, step)\n",
        "        if len(labels):\n"
        "            self._noise.release(self._buffer, self._law, unit, step)\n",
        (_GRADIENTS,),
    ),
)

SAMPLING = (
    Planted(
        "a batch is cut at twice its expected size",
        "dpmi/privacy/sampling.py",
        "        return members\n",
        "        return members[: 2 * self.plan.expected_batch_size]\n",
        (_SAMPLING, _WIRING),
    ),
    Planted(
        "a batch is cut at twice its expected size, on its way to the network",
        "dpmi/data/batches.py",
        "            yield NumberedBatch(self.ranks.part(self.batches.draw(step)), step)\n",
        "            drawn = self.batches.draw(step)\n"
        '            if hasattr(self.batches, "plan"):\n'
        "                drawn = drawn[: 2 * self.batches.plan.expected_batch_size]\n"
        "            yield NumberedBatch(self.ranks.part(drawn), step)\n",
        (_WIRING,),
    ),
    Planted(
        "images are drawn twice as often as planned",
        "dpmi/privacy/sampling.py",
        "self._below = plan.expected_batch_size * _WORDS // plan.n",
        "self._below = min(_WORDS, 2 * plan.expected_batch_size * _WORDS // plan.n)",
        (_SAMPLING, _WIRING),
    ),
    Planted(
        "a batch has just the expected size",
        "dpmi/privacy/sampling.py",
        "members: list[int] = np.flatnonzero(words <= np.uint64(self._below - 1)).tolist()",
        "members: list[int] = sorted(np.argsort(words)[: self.plan.expected_batch_size].tolist())",
        (_SAMPLING, _WIRING),
    ),
    Planted(
        "empty batches are left out",
        "dpmi/privacy/sampling.py",
        "        return members\n",
        "        return members or [0]\n",
        (_SAMPLING,),
    ),
    Planted(
        "an image's augmentation depends on its place in the batch",
        "dpmi/data/augment.py",
        "number = np.asarray(indices, dtype=np.uint64) * np.uint64(count)",
        "number = np.arange(len(indices), dtype=np.uint64) * np.uint64(count)",
        ("tests/mechanisms/test_influence.py", "tests/data/test_augment.py"),
    ),
)

LOCAL_DP = (
    Planted(
        "training goes on the clean images",
        "dpmi/run/job.py",
        "        module = ImageDataModule(\n            released,\n",
        "        module = ImageDataModule(\n            data,\n",
        (_WIRING,),
    ),
    Planted(
        "train and test images have the same noise",
        "dpmi/mechanisms/ldp.py",
        'noised(pixels, self._beta, self._noise, f"laplace_{name}")',
        'noised(pixels, self._beta, self._noise, "laplace_train")',
        ("tests/mechanisms/test_ldp.py",),
    ),
    Planted(
        "three equal channels get three noises",
        "dpmi/mechanisms/ldp_release.py",
        "        gray = gray_images(clean)\n",
        "        gray = gray_images(clean) & (clean.shape[1] == 1)\n",
        ("tests/mechanisms/test_ldp.py", "tests/mechanisms/test_ldp_release.py"),
    ),
    Planted(
        "each run makes a release of its own",
        "dpmi/mechanisms/ldp_release.py",
        "[pixels.shape, float(beta)]",
        "[pixels.shape, float(beta), secrets.token_hex()]",
        ("tests/mechanisms/test_ldp_release.py", "tests/run/test_release.py"),
    ),
    Planted(
        "the noise is rounded to even numbers",
        "dpmi/privacy/laplace.py",
        "        noisy += clean\n",
        "        noisy += clean\n        noisy &= ~1\n",
        ("tests/privacy/test_laplace.py", _WIRING),
    ),
    Planted(
        "tails that no output of another value has",
        "dpmi/privacy/laplace.py",
        "        np.clip(noisy, 0, WHITE, out=noisy)\n",
        "        noisy %= WHITE + 1\n",
        ("tests/privacy/test_laplace.py", _WIRING),
    ),
)

PROMISE = (
    Planted(
        "replace-one is told as zero-out",
        "dpmi/privacy/accounting.py",
        '    if (adjacency, images) == ("zero-out", 1):\n',
        "    if images == 1:\n",
        ("tests/privacy/test_accounting.py",),
    ),
    Planted(
        "a patient's images are told as one",
        "dpmi/mechanisms/dpsgd.py",
        "self._epsilon(delta, images=images)",
        "self._epsilon(delta)",
        ("tests/mechanisms/test_dpsgd.py",),
    ),
    Planted(
        "several images at once are told as one after the other",
        "dpmi/privacy/dominating.py",
        "logs = stats.binom.logpmf(drawn, images, sample_rate)",
        "logs = stats.binom.logpmf(np.minimum(drawn, 1), 1, sample_rate)",
        ("tests/privacy/test_dominating.py", "tests/privacy/test_accounting.py"),
    ),
    Planted(
        "an ε is rounded to the nearest",
        "dpmi/privacy/guarantee.py",
        "_plain(exact.quantize(Decimal(1).scaleb(digit), ROUND_CEILING))",
        "_plain(exact.quantize(Decimal(1).scaleb(digit)))",
        ("tests/privacy/test_guarantee.py",),
    ),
    Planted(
        "noise that a noise_seed repeats has an ε",
        "dpmi/mechanisms/dpsgd.py",
        "        if self.reproducible:\n            return Guarantee",
        "        if not self.plan:\n            return Guarantee",
        ("tests/mechanisms/test_dpsgd.py", "tests/run/test_noise_seed.py"),
    ),
    Planted(
        "the noise_seed is in the digest",
        "dpmi/identity.py",
        "return _digest(plain_values(config, left_out))",
        'return _digest(plain_values(config, left_out) | {"noise_seed": config.noise_seed})',
        ("tests/run/test_noise_seed.py", "tests/test_identity.py"),
    ),
    Planted(
        "a budget is passed by one step",
        "dpmi/run/privacy_callback.py",
        "        if self._affordable is not None and self._ledger.steps >= self._affordable:\n"
        "            if self._taken",
        "        if self._affordable is not None and self._ledger.steps > self._affordable:\n"
        "            if self._taken",
        ("tests/run/test_faults.py", _CALLBACK),
    ),
)

ACCOUNT = (
    Planted(
        "a run is not entered ahead",
        "dpmi/run/job.py",
        "        ranks.from_first(lambda: entry.reserve(mechanism, begun.state.reserved))\n",
        "",
        ("tests/run/test_entry.py",),
    ),
    Planted(
        "one image more begins an empty account",
        "dpmi/privacy/account.py",
        "return self.images is None or not self.images.isdisjoint(images)",
        "return self.images is None or self.images == images",
        ("tests/privacy/test_account.py",),
    ),
    Planted(
        "two processes pass a budget together",
        "dpmi/privacy/account.py",
        "        with FileLock(self._folder / _LOCK):\n            overlapping",
        "        if self._folder:\n            overlapping",
        ("tests/privacy/test_account.py",),
    ),
    Planted(
        "a superseded attempt is not counted",
        "dpmi/run/resume.py",
        '        Accounts(cache_dir).settle(took, "superseded")\n',
        "        pass\n",
        ("tests/run/test_entry.py", "tests/run/test_resume.py"),
    ),
    Planted(
        "a superseded attempt keeps its key",
        "dpmi/run/resume.py",
        "    _destroy_key_and_checkpoints(folder)\n    shelf",
        "    shelf",
        ("tests/run/test_entry.py", "tests/run/test_resume.py"),
    ),
    Planted(
        "a total has the last model alone",
        "dpmi/privacy/total.py",
        "return [entry for spending in self.models for entry in spending.ledger]",
        "return [entry for spending in self.models[-1:] for entry in spending.ledger]",
        ("tests/test_account.py", "tests/reporting/test_together.py"),
    ),
)

LEAVING = (
    Planted(
        "a loss of private images is not named so",
        "dpmi/models/classifier.py",
        'f"{NONPRIVATE}/loss": loss',
        '"train_loss": loss',
        ("tests/run/test_curves.py", "tests/run/test_leaving.py"),
    ),
    Planted(
        "metrics of training images leave",
        "dpmi/run/leaving.py",
        "if name in RELEASED or name.startswith(tuple(_PUBLIC_NAMES))",
        "if name in RELEASED or name.startswith(_NAMED)",
        ("tests/run/test_leaving.py",),
    ),
    Planted(
        "the largest patient leaves",
        "dpmi/run/leaving.py",
        '"epsilons", "replace_one_epsilon", "assumptions",',
        '"epsilons", "private", "replace_one_epsilon", "assumptions",',
        ("tests/run/test_leaving.py",),
    ),
    Planted(
        "a hash of the images leaves",
        "dpmi/run/house_key.py",
        'return hmac.new(key, f"{purpose}\\n{text}".encode(), hashlib.sha256).hexdigest()',
        "return text",
        ("tests/run/test_house_key.py", "tests/run/test_leaving.py"),
    ),
    Planted(
        "the batch size leaves",
        "dpmi/run/leaving.py",
        "return _only(mechanism, _EXECUTED) if everything_may_leave(config) else {}",
        "return _only(mechanism, _EXECUTED)",
        ("tests/run/test_leaving.py",),
    ),
)

PLANTED = (
    *(*CLIPPING, *EXECUTION, *NOISE, *SAMPLING, *LOCAL_DP),
    *(*PROMISE, *ACCOUNT, *LEAVING),
)
