"""Hugging Face Trainer, with one more argument: `RegularizedTrainer(model=…, args=…, regularizer="fgm")`.

Written along the Trainer of transformers 5.23, and tested with 5.17 too.
"""

import copy
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import Trainer

from dropattack.integrations.given import AGAIN, Given, checked, taken_over
from dropattack.regularizers import Losses, Output, Regularizer
from dropattack.regularizers.naming import unwrapped

if TYPE_CHECKING:  # a mixin, whose checker should know what it is mixed into
    from transformers import Trainer as _Base
else:
    _Base = object

# These keep parameters or gradients elsewhere than in `parameter` and `.grad`, or step inside the backward.
NO_STRATEGY = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "TP", "XLA")
NO_OPTIMIZER = ("lomo", "layerwise")


class RegularizerMixin(_Base):
    """For a Trainer of your own: `class MyTrainer(RegularizerMixin, Trainer)`.

    Everything else is the Trainer's: accumulation, mixed precision, clipping, DDP, label smoothing, `compute_loss` and
    `compute_loss_func`. With `Identity` the training is that of the plain Trainer, bit for bit. The regularizer's state
    is saved in every checkpoint beside the other random states, and restored from it.

    The loss in the logs is the objective's: for FGM about twice the clean loss. `losses` has the parts.

    Methods that compare logits, such as `RDrop`, take a `mask` beside `logits` in the model's or `compute_loss`'s
    outputs: see `Output`.

    Args:
        regularizer: The name of a method, such as `"fgm"`, a function that makes the regularizer of a model, or a
            regularizer of the very `model` that is trained. With `model_init`, which makes a new model for each
            training, it must be a name or a function.
        regularizer_options: Arguments of a method given by name, such as `{"epsilon": 0.5}`. Without `targets` it finds
            what it attacks by itself, if it can.

    Attributes:
        losses: Of the latest micro-batch, without logits, so that they do not take memory until the next; None before
            the first.

    Raises:
        TypeError: `regularizer` is none of these, or an option is unknown.
        ValueError: There is no method of this name, the strategy or the optimizer cannot be attacked through, or the
            regularizer is another model's.
    """

    def __init__(
        self,
        *args: object,
        regularizer: Given,
        regularizer_options: Mapping[str, object] | None = None,
        **kwargs: object,
    ):
        given = checked(regularizer, regularizer_options)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # the Trainer's own
        self._given = given
        self._regularizer: Regularizer | None = None
        self.losses: Losses | None = None
        self._warn_of_other_steps()
        self._check_support()
        if self.model_init is None:  # a wrong target name is an error here, not after an hour of tokenizing
            self.regularizer_for(self.model)

    def regularizer_for(self, model: nn.Module) -> Regularizer:
        """Return the regularizer of this model, wrapped or not."""
        inner = unwrapped(model)
        if isinstance(self._given, Regularizer):
            if self._given.model not in (None, inner):
                raise ValueError(
                    "the regularizer was made of another model than the one that is trained: "
                    "pass regularizer=lambda model: … instead"
                )
            return self._given
        if self._regularizer is None or self._regularizer.model not in (None, inner):
            made = self._given(inner)
            if not isinstance(made, Regularizer):
                raise TypeError(f"regularizer(model) must return a regularizer, such as FGM, not {type(made).__name__}")
            self._regularizer = made
        return self._regularizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, object], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Make a training step like the Trainer's, except for the line that computes the gradient."""
        context, inputs = self._prepare_context_parallel_inputs(model, inputs)
        with context():
            model.train()
            train = getattr(self.optimizer, "train", None)  # schedule-free optimizers have one
            if callable(train):
                train()
            inputs = self._prepare_inputs(inputs)
            regularizer = self.regularizer_for(model)
            if self.optimizer is not None:
                regularizer.follow(self.optimizer)
            micro_batches = self.current_gradient_accumulation_steps
            scaled = self._loss_is_scaled(num_items_in_batch)
            divisor = 1 if scaled else micro_batches
            # A divergence is not linear in the loss: if the loss is a share of the accumulated batch's mean, it must be
            # a whole mean again beside the divergence.
            whole = micro_batches if scaled and not regularizer.is_linear else 1
            if whole > 1 and self._told_scaled is None:
                raise ValueError(
                    f"{type(regularizer).__name__} with gradient accumulation needs to know what the model's loss is: "
                    "set trainer.loss_is_scaled_for_ga to True if it is divided by num_items_in_batch, to False if it "
                    "is a mean over the micro-batch (as that of BertForSequenceClassification)"
                )

            def forward() -> Output:
                with self.compute_loss_context_manager():
                    # A copy for each pass: with label smoothing, `compute_loss` takes the labels out.
                    loss, outputs = self.compute_loss(
                        model, copy.copy(inputs), return_outputs=True, num_items_in_batch=num_items_in_batch
                    )
                self._empty_cache()
                loss = loss.mean() if self.args.n_gpu > 1 else loss
                loss = loss if whole == 1 else loss * whole
                if not regularizer.needs_logits:  # over a vocabulary they are large: no pass keeps them for the next
                    return Output(loss)
                logits, mask = _named(outputs, "logits"), _named(outputs, "mask")
                if logits is None:
                    raise ValueError(
                        f"{type(regularizer).__name__} compares logits, and {type(unwrapped(model)).__name__} returned "
                        "none under that name: let it return a dict or ModelOutput with logits (return_dict=True)"
                    )
                return Output(loss, logits, mask)

            # In `backward` and not in `forward`, so that objectives that are not linear in the loss are scaled too.
            losses = regularizer.backward(
                forward,
                backward=lambda loss: self.accelerator.backward(loss / (divisor * whole)),
                no_sync=lambda: self.accelerator.no_sync(model),
            )
            self.losses = replace(losses, logits=None)
            return losses.total / (divisor * whole)

    def _loss_is_scaled(self, num_items_in_batch: Tensor | int | None) -> bool:
        """Return whether the loss is already a share of the accumulated batch's mean."""
        if self._told_scaled is not None:
            return self._told_scaled
        return (self.model_accepts_loss_kwargs and num_items_in_batch is not None) or self.compute_loss_func is not None

    @property
    def _told_scaled(self) -> bool | None:
        return getattr(self, "loss_is_scaled_for_ga", None)  # only defined in newer versions of transformers

    def _empty_cache(self) -> None:
        every = self.args.torch_empty_cache_steps
        if every is not None and self.state.global_step % every == 0 and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _warn_of_other_steps(self) -> None:
        """Name a class whose own `training_step` does not run, because the mixin comes before it."""
        kinds = type(self).__mro__
        for kind in kinds[kinds.index(RegularizerMixin) + 1 : kinds.index(Trainer)]:
            if "training_step" in vars(kind):
                name = kind.__name__
                warnings.warn(
                    f"the training_step of {name} does not run, because RegularizerMixin comes before it; if it calls "
                    f"super().training_step, write class {type(self).__name__}({name}, RegularizerMixin, Trainer)",
                    stacklevel=3,
                )

    def _check_support(self) -> None:
        strategy = self.accelerator.distributed_type.name
        if strategy in NO_STRATEGY or self.accelerator.distributed_type.value in NO_STRATEGY:
            raise ValueError(f"{type(self).__name__} cannot reach weights and gradients under {strategy}: use DDP")
        optimizer = str(getattr(self.args.optim, "value", self.args.optim))
        if any(word in optimizer for word in NO_OPTIMIZER):
            raise ValueError(
                f"optim={optimizer!r} steps within the backward, and a regularizer makes several in a step"
            )
        if self.args.n_gpu > 1:
            raise ValueError(
                "DataParallel runs copies of the model, which a regularizer does not know: start one process a GPU "
                "with torchrun, or show one GPU with CUDA_VISIBLE_DEVICES"
            )

    # Checkpoints. The Trainer saves and loads the random states of each process here; the regularizer's are more of it.

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        state = self.regularizer_for(cast(nn.Module, self.model)).state_dict()
        torch.save(state, self._state_file(output_dir, self.args.process_index))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            self._load_regularizer(checkpoint, self.args.process_index, self.args.world_size)

    def _load_regularizer(self, folder: str, rank: int, world: int) -> None:
        regularizer = self.regularizer_for(cast(nn.Module, self.model))
        if os.path.isfile(path := self._state_file(folder, rank)):
            regularizer.load_state_dict(torch.load(path, weights_only=True))
        elif os.path.isfile(path := self._state_file(folder, 0)):
            warnings.warn(AGAIN, stacklevel=2)
            regularizer.load_state_dict(taken_over(torch.load(path, weights_only=True), rank, world))

    @staticmethod
    def _state_file(folder: str, rank: int) -> str:
        return os.path.join(folder, f"regularizer_state_{rank}.pth")


def _named(outputs: object, name: str) -> Any:
    return outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)


class RegularizedTrainer(RegularizerMixin, Trainer):
    """`transformers.Trainer` with `regularizer=…`.

    Example:
        >>> trainer = RegularizedTrainer(
        ...     model=model, args=arguments, train_dataset=train,
        ...     regularizer="fgm", regularizer_options={"epsilon": 1.0},
        ... )  # doctest: +SKIP
    """
