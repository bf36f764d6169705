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
        caught_by: the test that must fail.
    """

    name: str
    file: str
    code: str
    planted: str
    caught_by: str


CLIPPING = (
    Planted(
        "gradients are not clipped",
        "dpmi/privacy/engines/clipping.py",
        "(max_grad_norm / (norms + _ROUNDING)).clamp(max=1.0)",
        "torch.ones_like(norms)",
        "tests/privacy/test_gradients.py::test_no_example_contributes_more_than_the_clip_norm",
    ),
    Planted(
        "the bound is one for each layer, not for all together",
        "dpmi/privacy/engines/bookkeeping.py",
        "norms = torch.stack(squares).sum(0).sqrt()",
        "norms = torch.stack(squares).amax(0).sqrt()",
        "tests/privacy/test_gradients.py::test_no_example_contributes_more_than_the_clip_norm",
    ),
    Planted(
        "the loss of an example's findings depends on how many the others have",
        "dpmi/base/targets.py",
        "    return (each * known).sum(1) / known.sum(1).clamp(min=1)\n",
        "    return (each * known).sum(1) / known.sum(1).float().mean().clamp(min=1)\n",
        "tests/privacy/engines/test_findings_clipped.py::"
        "test_an_examples_findings_are_clipped_together_as_in_a_loop_over_examples",
    ),
    Planted(
        "a gradient that is not finite is added",
        "dpmi/privacy/engines/clipping.py",
        "return torch.where(finite, factors, torch.zeros_like(factors)), finite",
        "return factors, None",
        "tests/privacy/test_gradients.py::"
        "test_an_example_without_a_finite_gradient_contributes_nothing_and_is_counted",
    ),
    Planted(
        "a norm layer's weights are left out of the norm",
        "dpmi/privacy/engines/rules.py",
        "self.squared_norms = torch.stack(squares).sum(0)",
        "self.squared_norms = squares[0]",
        "tests/privacy/test_gradients.py::"
        "test_clipped_gradients_of_resnet18_equal_a_naive_loop_over_examples",
    ),
    Planted(
        "a bias is left out of the norm",
        "dpmi/privacy/engines/linear.py",
        "            total = total + square\n",
        "            total = total\n",
        "tests/privacy/test_gradients.py::"
        "test_clipped_gradients_of_resnet18_equal_a_naive_loop_over_examples",
    ),
    Planted(
        "a shift of a Gram matrix is forgotten",
        "dpmi/privacy/engines/convolution.py",
        "for h in range(-pad_h, kh * dh - pad_h, dh):",
        "for h in range(-pad_h, kh * dh - pad_h - (kh > 1) * dh, dh):",
        "tests/privacy/engines/test_bookkeeping.py::"
        "test_any_convolutions_clipped_sum_equals_a_loop_over_examples",
    ),
    Planted(
        "the sum is made in the precision of the passes",
        "dpmi/privacy/engines/convolution.py",
        "x, grad_output, bias = precise(self.x), precise(self.grad_output), self.bias",
        "x, grad_output, bias = self.x, self.grad_output, self.bias",
        "tests/privacy/engines/test_precision.py::"
        "test_a_sum_over_many_examples_is_not_rounded_to_bfloat16",
    ),
    Planted(
        "what tensor cores round is taken for a share of the norm, as if no positions cancelled",
        "dpmi/privacy/engines/convolution.py",
        "uncancelled = _uncancelled(self.layer, self.x, self.grad_output, self.views)",
        "uncancelled = total.sqrt()",
        "tests/privacy/engines/test_tensor_cores.py::"
        "test_where_positions_cancel_an_example_moves_the_sum_by_no_more_than_c",
    ),
    Planted(
        "what fills a piece of a batch up contributes",
        "dpmi/privacy/engines/clipping.py",
        "        finite[examples:] = False\n",
        "        finite[examples:] &= True\n",
        "tests/privacy/engines/test_padding.py::test_whatever_fills_a_piece_adds_exactly_nothing",
    ),
    Planted(
        "Opacus' hooks leave the plain gradient behind",
        "dpmi/privacy/engines/opacus_hooks.py",
        "            parameter.grad = None  # the plain gradient, made in passing\n",
        "            sums[parameter] += parameter.grad * scale\n"
        "            parameter.grad = None\n",
        "tests/privacy/test_gradients.py::test_no_example_contributes_more_than_the_clip_norm",
    ),
    Planted(
        "the views of an image are clipped apart",
        "dpmi/privacy/engines/bookkeeping.py",
        "        images, labels, self._views = as_one_batch(images, labels)\n",
        "        images, labels, _ = as_one_batch(images, labels)\n",
        "tests/privacy/engines/test_multiplicity.py::"
        "test_no_image_contributes_more_than_the_clip_norm_in_however_many_views",
    ),
    Planted(
        "Opacus' hooks clip the views of an image apart",
        "dpmi/privacy/engines/opacus_hooks.py",
        'of_examples(getattr(parameter, "grad_sample"), views)',
        'getattr(parameter, "grad_sample")',
        "tests/privacy/engines/test_multiplicity.py::"
        "test_no_image_contributes_more_than_the_clip_norm_in_however_many_views",
    ),
    Planted(
        "a Gram matrix leaves out what two views have in common",
        "dpmi/privacy/engines/convolution.py",
        "gram_squared_norms(self.layer, self.x, self.grad_output, self.views)",
        "of_examples(gram_squared_norms(self.layer, self.x, self.grad_output, 1), self.views)",
        "tests/privacy/engines/test_multiplicity.py::"
        "test_any_convolutions_clipped_sum_over_views_equals_a_loop_over_images",
    ),
    Planted(
        "BatchNorm is let in",
        "dpmi/privacy/gradients.py",
        "        if isinstance(layer, _BatchNorm):\n            raise",
        "        if isinstance(layer, _BatchNorm) and layer is None:\n            raise",
        "tests/privacy/test_gradients.py::test_a_batch_norm_is_refused",
    ),
    Planted(
        "an example's tokens are measured one by one",
        "dpmi/privacy/engines/linear.py",
        "    products *= torch.bmm(grad_output, grad_output.transpose(1, 2))\n",
        "    products *= grad_output.square().sum(2).diag_embed()\n",
        "tests/privacy/engines/test_layers.py::"
        "test_a_layers_clipped_sum_equals_a_naive_loop_over_examples",
    ),
    Planted(
        "a class token's gradient is that of the whole batch",
        "dpmi/privacy/engines/parameters.py",
        "        rows = grad_output.reshape(-1, *layer.parameter.shape)\n",
        "        rows = grad_output.sum(0).repeat(len(grad_output), 1, 1)\n"
        "        rows = rows.reshape(-1, *layer.parameter.shape)\n",
        "tests/privacy/engines/test_layers.py::"
        "test_a_networks_clipped_sum_equals_a_naive_loop_over_examples",
    ),
    Planted(
        "LayerNorm's bias is left out of norm and sum",
        "dpmi/privacy/engines/norms.py",
        "            own[layer.bias] = upstream\n",
        "            own[layer.bias] = upstream * 0\n",
        "tests/privacy/engines/test_layers.py::"
        "test_a_layers_clipped_sum_equals_a_naive_loop_over_examples",
    ),
    Planted(
        "a layer without a rule meets the whole batch",
        "dpmi/privacy/engines/functional.py",
        "            y: Tensor = vmap(one)(x)\n",
        "            y: Tensor = type(layer).forward(layer, x)\n",
        "tests/privacy/engines/test_layers.py::"
        "test_what_mixes_examples_has_none_to_mix_without_a_rule",
    ),
    Planted(
        "a parameter used outside of its layer is let in",
        "dpmi/privacy/engines/bookkeeping.py",
        "            if parameter.grad is not None:\n",
        "            if parameter.grad is not None and not name:\n",
        "tests/privacy/engines/test_layers.py::test_what_cannot_be_made_exact_is_refused_by_name",
    ),
    Planted(
        "a layer that drops at random is let in",
        "dpmi/privacy/gradients.py",
        "        if drawn:\n",
        "        if drawn > 1:\n",
        "tests/privacy/test_gradients.py::test_a_layer_that_drops_at_random_is_refused_by_name",
    ),
)


EXECUTION = (
    Planted(
        "a job is built without its privacy callback",
        "dpmi/run/stages/training.py",
        "        callbacks.append(privacy)\n",
        "        pass\n",
        "tests/run/test_wiring.py::"
        "test_under_dp_sgd_the_network_gets_poisson_batches_and_the_noise_of_the_plan",
    ),
    Planted(
        "a step is not put on the ledger",
        "dpmi/privacy/gradients.py",
        "        self.ledger.record(plan.noise_multiplier, plan.sample_rate)\n",
        "        if step % 2:\n"
        "            self.ledger.record(plan.noise_multiplier, plan.sample_rate)\n",
        "tests/run/test_privacy_callback.py::test_the_plan_is_executed_to_its_last_step",
    ),
    Planted(
        "another sampler than the plan's is let in",
        "dpmi/run/privacy_callback.py",
        "if not isinstance(batches, PoissonBatches) or batches.plan != self._plan:",
        "if batches is None:",
        "tests/run/test_privacy_callback.py::test_a_shuffled_loader_is_refused",
    ),
    Planted(
        "BatchNorm switched to training in mid-run is let in",
        "dpmi/run/privacy_callback.py",
        "            if isinstance(layer, _BatchNorm) and layer.training:\n",
        "            if isinstance(layer, _BatchNorm) and not batch_idx and layer.training:\n",
        "tests/run/test_privacy_callback.py::"
        "test_a_batch_norm_switched_to_training_in_mid_run_is_refused",
    ),
    Planted(
        "gradient accumulation is let in",
        "dpmi/run/privacy_callback.py",
        "if trainer.accumulate_grad_batches != 1:",
        "if trainer.accumulate_grad_batches < 1:",
        "tests/run/test_privacy_callback.py::test_gradient_accumulation_is_refused",
    ),
    Planted(
        "lost steps are not counted",
        "dpmi/privacy/ledger.py",
        "        self.record(entry.noise_multiplier, entry.sample_rate, entry.steps)\n",
        "",
        "tests/run/durability/test_resume.py::"
        "test_where_steps_cannot_be_repeated_to_the_bit_those_lost_are_counted",
    ),
    Planted(
        "a step is written down after it was released",
        "dpmi/privacy/gradients.py",
        "        plan, step = self.plan, self._step\n        self._write_ahead()\n",
        "        plan, step = self.plan, self._step\n",
        "tests/privacy/test_gradients.py::test_a_step_that_cannot_be_written_ahead_is_not_released",
    ),
    Planted(
        "the journal is not flushed to the disk",
        "dpmi/privacy/journal.py",
        "            os.fsync(descriptor)\n"
        "        finally:\n"
        "            os.close(descriptor)\n"
        "        if is_new:",
        "            pass\n        finally:\n            os.close(descriptor)\n        if is_new:",
        "tests/privacy/test_journal.py::test_a_reservation_is_flushed_before_cover_returns",
    ),
    Planted(
        "noise is added before the processes' sums are: once for each",
        "dpmi/privacy/gradients.py",
        "        if self._ranks.size > 1:\n            self._add_up_ranks()\n",
        "        if self._ranks.size > 1:\n"
        "            self._noise.release(self._buffer, self._law, 1.0, step)\n"
        "            self._add_up_ranks()\n",
        "tests/privacy/test_ranks.py::"
        "test_two_processes_release_what_one_releases_with_its_noise_once",
    ),
    Planted(
        "each process takes the whole batch",
        "dpmi/base/ranks.py",
        "return whole[self.rank :: self.size]",
        "return whole",
        "tests/privacy/test_ranks.py::"
        "test_two_processes_release_what_one_releases_with_its_noise_once",
    ),
)


NOISE = (
    Planted(
        "noise that was drawn ahead is added to whatever step comes",
        "dpmi/privacy/noise.py",
        "if drawing is None or drawing.of != (purpose, step, law.std, len(sums)):",
        "if drawing is None:",
        "tests/privacy/test_noise.py::"
        "test_noise_drawn_ahead_is_that_of_its_step_and_added_to_no_other",
    ),
    Planted(
        "no noise is added",
        "dpmi/privacy/noise.py",
        "                    wide += noise[start : start + len(block)]\n",
        "",
        "tests/privacy/test_noise.py::test_noise_is_gaussian_of_the_requested_scale_in_every_part",
    ),
    Planted(
        "the noise is cut off at three standard deviations",
        "dpmi/privacy/noise.py",
        "                law.draw(part, noise[: len(values)])\n",
        "                law.draw(part, noise[: len(values)])\n"
        "                np.clip(noise, -int(3 * law.std), int(3 * law.std), out=noise)\n",
        "tests/run/test_wiring.py::"
        "test_under_dp_sgd_the_network_gets_poisson_batches_and_the_noise_of_the_plan",
    ),
    Planted(
        "the noise is a fifth too small",
        "dpmi/privacy/gradients.py",
        "return lattice_gaussian(plan.noise_std / step)",
        "return lattice_gaussian(0.8 * plan.noise_std / step)",
        "tests/privacy/test_gradients.py::"
        "test_noise_is_added_once_a_logical_batch_at_the_plans_scale",
    ),
    Planted(
        "the noise is scaled by the clip norm, not by the sensitivity",
        "dpmi/privacy/plan.py",
        "return self.noise_multiplier * self.sensitivity",
        "return self.noise_multiplier * self.max_grad_norm",
        "tests/run/test_wiring.py::"
        "test_under_dp_sgd_the_network_gets_poisson_batches_and_the_noise_of_the_plan",
    ),
    Planted(
        "every step has the same noise",
        "dpmi/privacy/noise.py",
        "self._release(sums.numpy(), law, unit, self._source.stream(purpose, step))",
        "self._release(sums.numpy(), law, unit, self._source.stream(purpose, 0))",
        "tests/privacy/test_gradients.py::test_each_release_has_noise_of_its_own",
    ),
    Planted(
        "every part of a release has the same noise",
        "dpmi/privacy/noise.py",
        "parts = stream.spawn(len(starts))",
        "parts = [SecretStream(bytes(32)) for _ in starts]",
        "tests/privacy/test_noise.py::test_parts_drawn_side_by_side_are_independent",
    ),
    Planted(
        "sampling and noise come from one stream",
        "dpmi/privacy/noise.py",
        "parts = stream.spawn(len(starts))",
        'parts = [self._source.stream("sampling", 0) for _ in starts]',
        "tests/run/test_wiring.py::test_no_secret_bits_are_used_twice",
    ),
    Planted(
        "a resumed attempt that cannot repeat its steps has the same noise",
        "dpmi/privacy/randomness.py",
        "attempt = 0 if purpose in _ONCE else self.attempt",
        "attempt = 0",
        "tests/privacy/test_randomness.py::"
        "test_purposes_steps_and_attempts_have_streams_that_have_nothing_in_common",
    ),
    Planted(
        "the key has 32 bits",
        "dpmi/privacy/randomness.py",
        "return secrets.token_bytes(KEY_BYTES)",
        "return secrets.token_bytes(4) * 8",
        "tests/privacy/test_randomness.py::test_a_key_has_256_bits_of_the_operating_system",
    ),
    Planted(
        "the counter of a stream begins anew at each call",
        "dpmi/privacy/randomness.py",
        "    @cached_property\n    def _cipher",
        "    @property\n    def _cipher",
        "tests/privacy/test_randomness.py::"
        "test_the_words_of_a_stream_are_those_of_aes_256_in_counter_mode",
    ),
    Planted(
        "the sum is not rounded to the lattice",
        "dpmi/privacy/noise.py",
        "                    np.rint(block, out=block)\n",
        "",
        "tests/privacy/test_noise.py::test_all_that_is_released_is_on_the_lattice",
    ),
    Planted(
        "the lattice is coarser than the plan allows",
        "dpmi/privacy/gradients.py",
        "plan.max_grad_norm * ROUNDING / 2 / math.sqrt(size)",
        "plan.max_grad_norm * ROUNDING",
        "tests/privacy/test_lattice_release.py::"
        "test_rounding_to_the_lattice_adds_at_most_half_of_the_allowance",
    ),
    Planted(
        "a δ that the noise's end does not allow is let in",
        "dpmi/privacy/gradients.py",
        "    if plan.delta < least:\n",
        "    if plan.delta < 0:\n",
        "tests/privacy/test_lattice_release.py::"
        "test_a_delta_below_what_the_noise_reaches_is_refused_in_one_line",
    ),
    Planted(
        "the tails of the lattice Gaussian are too thin",
        "dpmi/privacy/lattice.py",
        "rest = self._mass(n) - self._under[found]",
        "rest = (self._mass(n) - self._under[found]) * (abs(n) < 4 * self.std)",
        "tests/privacy/test_lattice.py::"
        "test_what_is_drawn_has_the_law_in_its_middle_and_in_its_tails",
    ),
    Planted(
        "the sum is divided by the batch's own size",
        "dpmi/privacy/gradients.py",
        "unit = self._lattice_step / plan.expected_batch_size",
        "unit = self._lattice_step / max(1, len(labels))",
        "tests/privacy/test_gradients.py::"
        "test_noise_is_added_once_a_logical_batch_at_the_plans_scale",
    ),
    Planted(
        "noise is added once for each piece",
        "dpmi/privacy/gradients.py",
        "        self._noise.release(self._buffer, self._law, unit, step)\n",
        "        for _ in range(max(1, -(-len(labels) // self.physical_batch_size))):\n"
        "            self._noise.release(self._buffer, self._law, unit, step)\n"
        "            unit = 1.0\n",
        "tests/privacy/test_gradients.py::"
        "test_noise_is_added_once_a_logical_batch_at_the_plans_scale",
    ),
    Planted(
        "an empty batch gets no noise",
        "dpmi/privacy/gradients.py",
        "        self._noise.release(self._buffer, self._law, unit, step)\n",
        "        if len(labels):\n"
        "            self._noise.release(self._buffer, self._law, unit, step)\n",
        "tests/privacy/test_gradients.py::"
        "test_noise_is_added_once_a_logical_batch_at_the_plans_scale",
    ),
)


SAMPLING = (
    Planted(
        "a batch is cut at twice its expected size",
        "dpmi/privacy/sampling.py",
        "        return members\n",
        "        return members[: 2 * self.plan.expected_batch_size]\n",
        "tests/run/test_wiring.py::test_batches_are_of_every_size_that_poisson_sampling_draws",
    ),
    Planted(
        "a batch is cut at twice its expected size, on its way to the network",
        "dpmi/data/batches.py",
        "            yield NumberedBatch(self.ranks.part(self.batches.draw(step)), step)\n",
        "            drawn = self.batches.draw(step)\n"
        '            if hasattr(self.batches, "plan"):\n'
        "                drawn = drawn[: 2 * self.batches.plan.expected_batch_size]\n"
        "            yield NumberedBatch(self.ranks.part(drawn), step)\n",
        "tests/run/test_wiring.py::test_batches_are_of_every_size_that_poisson_sampling_draws",
    ),
    Planted(
        "images are drawn twice as often as planned",
        "dpmi/privacy/sampling.py",
        "self._below = plan.expected_batch_size * _WORDS // plan.n",
        "self._below = min(_WORDS, 2 * plan.expected_batch_size * _WORDS // plan.n)",
        "tests/privacy/test_sampling.py::"
        "test_each_image_is_included_at_the_plans_rate_independently",
    ),
    Planted(
        "a batch has just the expected size",
        "dpmi/privacy/sampling.py",
        "members: list[int] = np.flatnonzero(words <= np.uint64(self._below - 1)).tolist()",
        "members: list[int] = sorted(np.argsort(words)[: self.plan.expected_batch_size].tolist())",
        "tests/run/test_wiring.py::test_batches_are_of_every_size_that_poisson_sampling_draws",
    ),
    Planted(
        "empty batches are left out",
        "dpmi/privacy/sampling.py",
        "        return members\n",
        "        return members or [0]\n",
        "tests/privacy/test_sampling.py::test_empty_batches_are_batches",
    ),
    Planted(
        "an image's augmentation depends on its place in the batch",
        "dpmi/data/batches.py",
        "number = np.asarray(indices, dtype=np.uint64) * np.uint64(count)",
        "number = np.arange(len(indices), dtype=np.uint64) * np.uint64(count)",
        "tests/data/test_augment.py::test_what_is_drawn_for_an_image_depends_on_no_other",
    ),
    Planted(
        "an image's second view depends on its place in the batch",
        "dpmi/data/augment.py",
        "uniform_of(indices, 2, step_seed(seed, step, view))",
        "uniform_of(range(len(indices)) if view else indices, 2, step_seed(seed, step, view))",
        "tests/data/test_augment.py::test_what_is_drawn_for_an_image_depends_on_no_other",
    ),
)


LOCAL_DP = (
    Planted(
        "training goes on the clean images",
        "dpmi/run/stages/training.py",
        "module = batches(config, released, features, patients, mechanism, begun.step, ranks)",
        "module = batches(config, images.data, features, patients, mechanism, begun.step, ranks)",
        "tests/run/test_wiring.py::"
        "test_under_local_dp_the_network_is_trained_on_released_images_alone",
    ),
    Planted(
        "train and test images have the same noise",
        "dpmi/mechanisms/ldp.py",
        'noised(both.pixels, self._beta, self._pool, source, "laplace_test")',
        'noised(both.pixels, self._beta, self._pool, self._noise, "laplace_train")',
        "tests/mechanisms/test_ldp.py::test_training_and_test_images_get_noise_of_their_own",
    ),
    Planted(
        "three equal channels get three noises",
        "dpmi/mechanisms/ldp_release.py",
        "        gray, clean = gray_images(whole), pooled(whole, pool)\n",
        "        gray, clean = gray_images(whole) & (whole.shape[1] == 1), pooled(whole, pool)\n",
        "tests/mechanisms/test_ldp.py::"
        "test_a_gray_value_gets_one_noise_however_many_channels_repeat_it",
    ),
    Planted(
        "each run makes a release of its own",
        "dpmi/mechanisms/ldp_release.py",
        "[pixels.shape, float(beta), pool]",
        "[pixels.shape, float(beta), pool, secrets.token_hex()]",
        "tests/mechanisms/test_ldp_release.py::test_who_asks_again_gets_the_same_release",
    ),
    Planted(
        "the noise is rounded to even numbers",
        "dpmi/privacy/laplace.py",
        "        noisy += clean\n",
        "        noisy += clean\n        noisy &= ~1\n",
        "tests/run/test_wiring.py::"
        "test_under_local_dp_the_network_is_trained_on_released_images_alone",
    ),
    Planted(
        "the noise of a mean is for less than what a pixel moves it by",
        "dpmi/privacy/laplace.py",
        "    return -(-WHITE // side**2)\n",
        "    return WHITE // side**2\n",
        "tests/privacy/test_laplace.py::"
        "test_one_pixel_moves_one_mean_by_no_more_than_the_noise_is_made_for",
    ),
    Planted(
        "an image's ε counts each mean as if it moved no further than by one pixel",
        "dpmi/mechanisms/ldp.py",
        "        return pixel_epsilon(self._beta) * means * WHITE / mean_moves(self._pool)\n",
        "        return pixel_epsilon(self._beta) * means\n",
        "tests/mechanisms/test_ldp.py::"
        "test_blocks_keep_the_epsilon_of_a_pixel_and_all_their_pixels_move_a_mean_wholly",
    ),
    Planted(
        "noise of blocks is drawn for a mean as it is made of fewer pixels",
        "dpmi/mechanisms/ldp_release.py",
        "        drawn = laplace_mechanism(values, beta, stream, mean_moves(pool))\n",
        "        drawn = laplace_mechanism(values, beta, stream, mean_moves(pool) // 2 + 1)\n",
        "tests/run/test_wiring.py::"
        "test_under_local_dp_the_network_is_trained_on_released_images_alone",
    ),
    Planted(
        "tails that no output of another value has",
        "dpmi/privacy/laplace.py",
        "        np.clip(noisy, 0, WHITE, out=noisy)\n",
        "        noisy %= WHITE + 1\n",
        "tests/privacy/test_laplace.py::"
        "test_released_pixels_keep_the_distribution_up_to_clipping_and_rounding",
    ),
)


PROMISE = (
    Planted(
        "replace-one is reported as zero-out",
        "dpmi/privacy/accounting.py",
        '    if (adjacency, images) == ("zero-out", 1):\n',
        "    if images == 1:\n",
        "tests/privacy/test_dominating.py::"
        "test_the_posters_epsilon_of_1_is_more_than_2_where_an_image_is_replaced_by_another",
    ),
    Planted(
        "a patient's images are counted as one",
        "dpmi/mechanisms/planned.py",
        "self._epsilon(delta, images=images)",
        "self._epsilon(delta)",
        "tests/mechanisms/test_dpsgd.py::"
        "test_the_guarantee_states_stricter_deltas_the_other_adjacency_and_whole_patients",
    ),
    Planted(
        "several images at once are counted as one after the other",
        "dpmi/privacy/dominating.py",
        "logs = stats.binom.logpmf(drawn, images, sample_rate)",
        "logs = stats.binom.logpmf(np.minimum(drawn, 1), 1, sample_rate)",
        "tests/privacy/test_dominating.py::"
        "test_several_images_of_a_patient_spend_what_dp_accounting_says_of_a_mixture",
    ),
    Planted(
        "an ε is rounded to the nearest",
        "dpmi/privacy/guarantee.py",
        "_plain(exact.quantize(Decimal(1).scaleb(digit), ROUND_CEILING))",
        "_plain(exact.quantize(Decimal(1).scaleb(digit)))",
        "tests/privacy/test_guarantee.py::test_an_epsilon_is_printed_to_three_digits_rounded_up",
    ),
    Planted(
        "noise that a noise_seed repeats has an ε",
        "dpmi/mechanisms/planned.py",
        "        if self.reproducible:\n            return Guarantee",
        "        if not self.plan:\n            return Guarantee",
        "tests/mechanisms/test_dpsgd.py::test_noise_that_noise_seed_repeats_gives_no_guarantee",
    ),
    Planted(
        "the noise_seed is in the digest",
        "dpmi/config/identity.py",
        "return _digest(plain_values(config, left_out))",
        'return _digest(plain_values(config, left_out) | {"noise_seed": config.noise_seed})',
        "tests/run/test_noise_seed.py::test_no_digest_is_made_with_the_number_of_a_noise_seed",
    ),
    Planted(
        "a budget is passed by one step",
        "dpmi/run/privacy_callback.py",
        "        if self._affordable is not None and taken >= self._affordable:\n",
        "        if self._affordable is not None and taken > self._affordable:\n",
        "tests/run/durability/test_faults.py::"
        "test_a_budget_stops_a_run_before_the_step_that_would_pass_it_and_keeps_the_model",
    ),
)


ACCOUNT = (
    Planted(
        "a run is not entered ahead",
        "dpmi/run/stages/mechanism.py",
        "    context.ranks.from_first(lambda: entry.reserve(mechanism, begun.lost))\n",
        "",
        "tests/run/records/test_entry.py::"
        "test_a_run_is_one_entry_reserved_by_its_plan_and_then_what_it_took",
    ),
    Planted(
        "one image more begins an empty account",
        "dpmi/privacy/account.py",
        "return self.images is None or not self.images.isdisjoint(images)",
        "return self.images is None or self.images == images",
        "tests/privacy/test_account.py::"
        "test_no_other_choice_of_the_same_images_begins_with_an_empty_account",
    ),
    Planted(
        "two processes pass a budget together",
        "dpmi/privacy/account.py",
        "        with FileLock(self._folder / _LOCK):\n            overlapping",
        "        if self._folder:\n            overlapping",
        "tests/privacy/test_account.py::"
        "test_of_two_processes_that_want_the_last_of_a_budget_one_gets_it",
    ),
    Planted(
        "a superseded attempt is not counted",
        "dpmi/run/durability/job_folder.py",
        '        Accounts(cache_dir).settle(took, "superseded")\n',
        "        pass\n",
        "tests/run/records/test_entry.py::"
        "test_a_killed_run_stays_at_its_plan_and_superseded_at_what_its_journal_states",
    ),
    Planted(
        "a superseded attempt keeps its key",
        "dpmi/run/durability/job_folder.py",
        "    _destroy_key_and_checkpoints(folder)\n    shelf",
        "    shelf",
        "tests/run/records/test_entry.py::test_keys_and_checkpoints_of_superseded_attempts_are_destroyed",
    ),
    Planted(
        "a total has the last model alone",
        "dpmi/privacy/total.py",
        "return [entry for spending in self.models for entry in spending.ledger]",
        "return [entry for spending in self.models[-1:] for entry in spending.ledger]",
        "tests/privacy/test_account.py::"
        "test_the_total_is_what_dp_accounting_composes_and_not_the_sum",
    ),
)


SEARCH = (
    Planted(
        "a search goes by images of patients",
        "dpmi/search/sweeper.py",
        "            _refuse_real_images(composed)\n",
        "",
        "tests/search/test_sweeper.py::test_a_search_on_images_that_are_not_drawn_is_refused",
    ),
    Planted(
        "what a search launches is not looked at",
        "dpmi/search/sweeper.py",
        "            _refuse_real_images(job.config)\n",
        "            pass\n",
        "tests/search/test_sweeper.py::"
        "test_what_is_launched_is_held_to_the_same_whatever_was_checked_before",
    ),
)
LEAVING = (
    Planted(
        "a loss of private images is not named so",
        "dpmi/models/classifier.py",
        'logged = {f"{NONPRIVATE}/{k}": v for',
        'logged = {"train_loss" if k == "loss" else f"{NONPRIVATE}/{k}": v for',
        "tests/run/test_wiring.py::"
        "test_under_dp_sgd_the_network_gets_poisson_batches_and_the_noise_of_the_plan",
    ),
    Planted(
        "metrics of training images leave",
        "dpmi/run/records/leaving.py",
        "if name in RELEASED or name.startswith(tuple(_PUBLIC_NAMES))",
        "if name in RELEASED or name.startswith(_NAMED)",
        "tests/run/records/test_leaving.py::test_a_value_that_nobody_has_listed_stays",
    ),
    Planted(
        "the largest patient leaves",
        "dpmi/run/records/leaving.py",
        '"epsilons", "replace_one_epsilon", "assumptions",',
        '"epsilons", "private", "replace_one_epsilon", "assumptions",',
        "tests/run/records/test_leaving.py::"
        "test_a_public_record_is_the_same_whatever_the_training_images_are",
    ),
    Planted(
        "a hash of the images leaves",
        "dpmi/run/records/house_key.py",
        'return hmac.new(key, f"{purpose}\\n{text}".encode(), hashlib.sha256).hexdigest()',
        "return text",
        "tests/run/records/test_house_key.py::"
        "test_a_house_gives_the_same_text_the_same_digest_and_another_house_another",
    ),
    Planted(
        "the batch size leaves",
        "dpmi/run/records/leaving.py",
        "return _only(mechanism, _EXECUTED) if everything_may_leave(config) else {}",
        "return _only(mechanism, _EXECUTED)",
        "tests/run/records/test_leaving.py::test_a_public_record_reveals_nothing_of_a_users_own_images",
    ),
    Planted(
        "images that are lent are taken for public ones",
        "dpmi/run/records/leaving.py",
        'OWN_DATA = frozenset({"folder", "csv"}) | LENT',
        'OWN_DATA = frozenset({"folder", "csv"})',
        "tests/run/records/test_leaving.py::"
        "test_of_images_that_are_lent_no_more_leaves_than_of_a_users_own",
    ),
)

_PLANNED = "tests/mechanisms/test_planned.py"
_SUMS = "tests/privacy/test_statistics.py"

STATISTICS = (
    Planted(
        "the features' mean has no noise",
        "dpmi/mechanisms/planned.py",
        "                hand_over(net, planned.name, released, self._train, planned.noise_std)\n",
        "                centre = planned.name == 'centre'\n"
        "                released = exact if centre else released\n"
        "                hand_over(net, planned.name, released, self._train, planned.noise_std)\n",
        f"{_PLANNED}::test_the_centre_is_released_with_its_noise_and_no_more",
    ),
    Planted(
        "the counts of the classes have no noise",
        "dpmi/mechanisms/planned.py",
        "                hand_over(net, planned.name, released, self._train, planned.noise_std)\n",
        "                centre = planned.name == 'centre'\n"
        "                released = released if centre else exact\n"
        "                hand_over(net, planned.name, released, self._train, planned.noise_std)\n",
        f"{_PLANNED}::test_class_counts_are_released_with_their_noise",
    ),
    Planted(
        "a first head is computed from sums without noise",
        "dpmi/mechanisms/planned.py",
        "                hand_over(net, planned.name, released, self._train, planned.noise_std)\n",
        "                sums = planned.name == 'class_sums'\n"
        "                released = exact if sums else released\n"
        "                hand_over(net, planned.name, released, self._train, planned.noise_std)\n",
        f"{_PLANNED}::test_a_first_head_is_computed_from_class_sums_with_their_noise",
    ),
    Planted(
        "the count beside a class's sum is left out of the sensitivity",
        "dpmi/privacy/statistics.py",
        "        return sums / class_sensitivity(COUNT_SCALE)\n",
        "        return sums\n",
        "tests/privacy/test_statistics.py::"
        "test_dropping_any_one_image_moves_each_statistic_by_at_most_its_sensitivity",
    ),
    Planted(
        "the learning rate is printed as lowered, and is not",
        "dpmi/run/parts.py",
        "mechanism.learning_rate if",
        "config.learning_rate if",
        "tests/run/test_noise_walk.py::test_the_noise_moves_weights_as_far_as_noise_walk_allows",
    ),
    Planted(
        "kernels are trained under noise that was chosen for scales and shifts",
        "dpmi/run/parts.py",
        "net.freeze_all_but_norms()",
        "pass",
        "tests/run/test_noise_walk.py::"
        "test_by_default_it_moves_scales_and_shifts_by_a_twentieth_and_kernels_by_nothing",
    ),
    Planted(
        "the part of momentum in the walk is left out",
        "dpmi/models/walk.py",
        "momentum**2 * vv + 1, momentum * wv",
        "momentum**2 * vv + 1, 0.0 * wv",
        "tests/models/test_walk.py::test_it_is_what_sgd_makes_of_noise",
    ),
    Planted(
        "features are whitened, and the weights that are kept know nothing of it",
        "dpmi/models/network.py",
        "self.whitening.folded(weight, bias) if self.whitening else (weight, bias)",
        "(weight, bias)",
        "tests/models/test_whitening.py::"
        "test_what_is_kept_of_a_trained_network_is_torchvisions_and_decides_the_same",
    ),
    Planted(
        "the sums of the classes' logits have no noise",
        "dpmi/mechanisms/dpsgd.py",
        "decide_midway(net, released, self._train, planned.noise_std)",
        "decide_midway(net, exact, self._train, planned.noise_std)",
        f"{_PLANNED}::test_the_sums_of_the_logits_are_released_with_their_noise_after_the_steps",
    ),
    Planted(
        "a lost release after the steps is taken for a step",
        "dpmi/mechanisms/planned.py",
        "            after_steps=planned.name == CLASS_LOGITS,\n",
        "",
        f"{_PLANNED}::test_the_sums_of_the_logits_are_counted_in_full_where_an_attempt_was_lost",
    ),
    Planted(
        "an image's logits are not bounded",
        "dpmi/privacy/statistics.py",
        "rows = weighted(bounded((logits - logits.mean(1, keepdim=True)) / LOGIT_BOUND), weights)",
        "rows = weighted((logits - logits.mean(1, keepdim=True)).double() / LOGIT_BOUND, weights)",
        "tests/privacy/test_statistics.py::"
        "test_dropping_any_one_image_moves_each_statistic_by_at_most_its_sensitivity",
    ),
    Planted(
        "an image of several findings moves each of their counts by one",
        "dpmi/privacy/finding_statistics.py",
        "    rows = _sides(findings, torch.ones_like(findings)) / math.sqrt(findings.shape[1])\n"
        "    return weighted(bounded(rows), weights).sum(0)\n",
        "    rows = _sides(findings, torch.ones_like(findings)).double()\n"
        "    return weighted(rows, weights).sum(0)\n",
        "tests/privacy/test_finding_statistics.py::"
        "test_dropping_any_one_image_moves_counts_and_logit_sums_by_at_most_their_sensitivity",
    ),
    Planted(
        "an image's logits of its findings are not bounded",
        "dpmi/privacy/finding_statistics.py",
        "    rows = _sides(findings, logits) / (LOGIT_BOUND * math.sqrt(findings.shape[1]))\n"
        "    return weighted(bounded(rows), weights).sum(0)\n",
        "    rows = _sides(findings, logits) / (LOGIT_BOUND * math.sqrt(findings.shape[1]))\n"
        "    return weighted(rows.double(), weights).sum(0)\n",
        "tests/privacy/test_finding_statistics.py::"
        "test_dropping_any_one_patient_moves_them_by_at_most_their_sensitivity",
    ),
    Planted(
        "a mean of a class is by its exact count",
        "dpmi/mechanisms/class_means.py",
        "sums.view(classes, -1), counts / scale,",
        "sums.view(classes, -1), torch.bincount(labels, minlength=classes).double(),",
        f"{_PLANNED}::test_class_means_use_what_was_released_and_nothing_else",
    ),
    Planted(
        "what stands twice in the second moment is released twice over",
        "dpmi/privacy/statistics.py",
        "    weights = like.new_full(row.shape, math.sqrt(2.0))\n",
        "    weights = like.new_full(row.shape, 2.0)\n",
        f"{_SUMS}::test_dropping_any_one_image_moves_sums_counts_and_second_moment_by_no_more_than_"
        "planned",
    ),
    Planted(
        "what stands twice in the second moment counts once",
        "dpmi/privacy/statistics.py",
        "    weights = like.new_full(row.shape, math.sqrt(2.0))\n",
        "    weights = like.new_full(row.shape, 1.0)\n",
        f"{_SUMS}::test_a_packed_matrix_is_as_long_as_it_was_and_is_had_again",
    ),
    Planted(
        "the second moment's weight is not in the sensitivity",
        "dpmi/privacy/statistics.py",
        "    return math.sqrt(1.0 + count_scale**2 + (moment_scale or 0.0) ** 2)\n",
        "    return math.sqrt(1.0 + count_scale**2)\n",
        f"{_SUMS}::test_dropping_any_one_image_moves_sums_counts_and_second_moment_by_no_more_than_"
        "planned",
    ),
    Planted(
        "the second moment is of vectors as they came",
        "dpmi/privacy/statistics.py",
        "packed(rows.T @ counted))",
        "packed(vectors.double().T @ vectors.double()))",
        f"{_SUMS}::test_dropping_any_one_image_moves_sums_counts_and_second_moment_by_no_more_than_"
        "planned",
    ),
    Planted(
        "the second moment has no noise",
        "dpmi/mechanisms/class_means.py",
        "            moment = unpacked(moment / moment_scale)\n",
        "            moment = rows.double().T @ rows.double()\n",
        f"{_PLANNED}::test_the_second_moment_is_released_with_the_noise_of_the_plan_in_every_part",
    ),
    Planted(
        "the second moment's values are not counted where the noise ends",
        "dpmi/mechanisms/class_means.py",
        "sum(self._sizes(net)))",
        "sum(self._sizes(net)[:2]))",
        f"{_PLANNED}::test_a_delta_below_what_the_second_moments_values_can_keep_is_refused",
    ),
    Planted(
        "vectors are brought to length one after they are summed",
        "dpmi/privacy/rows.py",
        "    kept = vectors * norms.clamp(min=1.0).reciprocal()\n",
        "    kept = vectors\n",
        "tests/privacy/test_statistics.py::"
        "test_dropping_any_one_image_moves_each_statistic_by_at_most_its_sensitivity",
    ),
    Planted(
        "each view of an image is a contribution",
        "dpmi/features/vectors.py",
        "        block = torch.stack([values.double() for values in of_views]).mean(0)\n",
        "        block = torch.cat([values.double() for values in of_views])\n",
        "tests/features/test_backbone.py::test_the_views_of_an_image_are_one_row_of_length_one",
    ),
    Planted(
        "a statistic is not on the ledger",
        "dpmi/privacy/releases.py",
        "    ledger.record(noise_multiplier, 1.0)\n",
        "    ledger.record(noise_multiplier, 1.0) if purpose == 'gradient' else None\n",
        f"{_PLANNED}::test_each_release_is_on_the_journal_and_the_ledger_before_it_is_made",
    ),
)


_ANSWERS = "tests/run/test_answers.py"

ONE_BIT = (
    Planted(
        "nobody lies",
        "dpmi/mechanisms/ldp_features.py",
        "            bits[question.rows] = answers = respondents(question)\n",
        "            self._response.lies = 1\n"
        "            bits[question.rows] = answers = respondents(question)\n",
        f"{_ANSWERS}::test_weights_are_computed_from_answers_that_lie_as_often_as_beta_says",
    ),
    Planted(
        "the odds of a lie are those of half the ε",
        "dpmi/privacy/one_bit.py",
        "Decimal(_WORDS), _DIGITS.add(odds, Decimal(1))",
        "Decimal(_WORDS), _DIGITS.add(odds * odds, Decimal(1))",
        "tests/privacy/test_one_bit.py::"
        "test_no_answer_tells_two_images_apart_by_more_than_exp_epsilon",
    ),
    Planted(
        "an image is asked again",
        "dpmi/privacy/one_bit.py",
        "        self._answered[rows] = True\n",
        "",
        "tests/privacy/test_one_bit.py::test_an_image_answers_once",
    ),
    Planted(
        "all images lie together",
        "dpmi/privacy/one_bit.py",
        "        words = stream.words(len(truths))\n",
        "        words = np.repeat(stream.words(1), len(truths))\n",
        "tests/privacy/test_one_bit.py::test_images_lie_independently_as_often_as_they_should",
    ),
    Planted(
        "the classes' shares are counted",
        "dpmi/mechanisms/ldp_features.py",
        "shares = torch.from_numpy(estimate.sums), torch.from_numpy(estimate.shares)\n",
        "shares = torch.from_numpy(estimate.sums), torch.bincount(\n"
        "            torch.from_numpy(self._labels).long(), minlength=self._classes\n"
        "        ) / len(self._labels)\n",
        "tests/mechanisms/test_ldp_features.py::test_the_head_is_a_function_of_the_answers_alone",
    ),
    Planted(
        "each run asks anew",
        "dpmi/mechanisms/ldp_features.py",
        'parts = ["answers", VERSION,',
        'parts = ["answers", secrets.token_hex(),',
        "tests/mechanisms/test_ldp_features.py::"
        "test_all_runs_on_the_same_features_have_the_same_answers_and_the_account_counts_them",
    ),
)

_PATIENTS = "tests/run/test_protected_patients.py"
PATIENTS = (
    Planted(
        "the images of a patient are clipped apart",
        "dpmi/privacy/engines/bookkeeping.py",
        "        ctx.layer, ctx.rule, ctx.views, ctx.record = layer, rule, views, record\n",
        "        ctx.layer, ctx.rule, ctx.views, ctx.record = layer, rule, 1, record\n",
        "tests/privacy/engines/test_multiplicity.py::"
        "test_dropping_any_one_patient_moves_the_sum_by_no_more_than_the_clip_norm",
    ),
    Planted(
        "which images a patient gives depends on the place in the batch",
        "dpmi/data/patients.py",
        "uniform_of(chosen, 1, step_seed(seed, step, _STREAM))",
        "uniform_of(range(len(chosen)), 1, step_seed(seed, step, _STREAM))",
        "tests/data/test_patients.py::"
        "test_what_a_patient_gives_depends_on_nobody_else_in_the_batch",
    ),
    Planted(
        "which images a patient gives depends on where the images of others stand",
        "dpmi/data/patients.py",
        "start = uniform_of(chosen, 1,",
        "start = uniform_of(self._first[chosen], 1,",
        "tests/data/test_patients.py::test_what_a_patient_gives_depends_on_no_other_patients_images",
    ),
    Planted(
        "a patient counts as often as there are images",
        "dpmi/privacy/statistics.py",
        "        return torch.bincount(self.patients).double().reciprocal()[self.patients]\n",
        "        return None\n",
        "tests/privacy/test_statistics.py::"
        "test_dropping_any_one_patient_moves_each_statistic_by_at_most_its_sensitivity",
    ),
    Planted(
        "a plan for patients counts images",
        "dpmi/privacy/statistics.py",
        "return len(self.labels) if self.patients is None else len(torch.bincount(self.patients))",
        "return len(self.labels)",
        f"{_PATIENTS}::test_a_step_sums_the_clipped_mean_gradients_of_the_patients_that_were_drawn",
    ),
    Planted(
        "under local DP a patient gives all images",
        "dpmi/run/stages/images.py",
        "        data, patients = one_image_of_each(data, patients), None\n",
        "        patients = None\n",
        f"{_PATIENTS}::test_local_dp_trains_on_one_image_of_each_patient",
    ),
    Planted(
        "an image's total counts what hides patients as if it hid images",
        "dpmi/privacy/total.py",
        "        if any(s.unit != self.unit for s in self.models):\n",
        "        if False:\n",
        "tests/privacy/test_account.py::"
        "test_an_image_among_what_hides_patients_is_counted_as_replaced_and_no_patient_is_reported",
    ),
    Planted(
        "weights that hid images go into the epsilon of a patient",
        "dpmi/run/first_weights.py",
        "any(s.unit != unit for s in own.spendings)",
        "False",
        "tests/run/test_first_weights.py::"
        "test_weights_that_hid_another_unit_of_the_same_images_are_refused",
    ),
    Planted(
        "each eye is a patient",
        "dpmi/data/readers/graded.py",
        'images.append(Listed(path, _grade(row, "level", file), patient, "train", where))',
        'images.append(Listed(path, _grade(row, "level", file), name, "train", where))',
        "tests/data/test_archive_readers.py::test_both_eyes_of_an_eyepacs_patient_are_in_one_split",
    ),
    Planted(
        "each study is a patient",
        "dpmi/data/readers/mimic_cxr.py",
        'images.append(Listed(path, label, f"p{patient}", split, where, {"view": view}))',
        'images.append(Listed(path, label, f"s{study}", split, where, {"view": view}))',
        "tests/data/test_archive_readers.py::"
        "test_mimic_is_read_by_its_own_splits_with_a_studys_labels",
    ),
)

RISK = (
    Planted(
        "what an attacker can do forgets the adjacency",
        "dpmi/privacy/risk.py",
        "of_ledger(entries, adjacency)),)",
        'of_ledger(entries, "zero-out")),)',
        "tests/privacy/test_risk.py::test_it_holds_for_the_unit_and_the_adjacency_of_the_guarantee",
    ),
    Planted(
        "the largest patient's bounds are those of one image",
        "dpmi/privacy/risk.py",
        "of_ledger(entries, adjacency, largest.images)",
        "of_ledger(entries, adjacency)",
        "tests/privacy/test_risk.py::"
        "test_of_a_patient_gaussian_releases_move_by_as_much_as_all_images_together",
    ),
    Planted(
        "one order of the two data sets alone bounds an attacker",
        "dpmi/privacy/tradeoff.py",
        "losses.get_delta_for_epsilon(float(epsilon))",
        "losses._pmf_add.get_delta_for_epsilon(float(epsilon))",
        "tests/privacy/test_tradeoff.py::"
        "test_of_one_sampled_step_it_is_the_concave_hull_of_both_orders",
    ),
    Planted(
        "bounds on an attacker are rounded to the nearest",
        "dpmi/privacy/risk.py",
        "float(printed_epsilon(value, _DIGITS))",
        'float(f"{value:.{_DIGITS}g}")',
        "tests/privacy/test_risk.py::"
        "test_of_gaussian_releases_each_number_is_the_closed_form_rounded_up",
    ),
    Planted(
        "bounds on an attacker leave out the statistics",
        "dpmi/mechanisms/risks.py",
        "mechanism.released if",
        "mechanism.released[1:2] if",
        "tests/run/test_risk_of_a_run.py::test_the_bounds_in_the_record_are_those_of_the_ledger_in_it",
    ),
)


PLANTED = (
    *(*CLIPPING, *EXECUTION, *NOISE, *SAMPLING, *LOCAL_DP),
    *(*PROMISE, *ACCOUNT, *SEARCH, *LEAVING, *STATISTICS, *ONE_BIT, *PATIENTS, *RISK),
)
