"""Averages of the weights over the steps of a training: EMA and SWA, by torch's `AveragedModel`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from dropattack.batch import Batch
from dropattack.training import seeding

Kind = Literal["none", "ema", "swa"]


class Average:
    """The average of a model's weights after each optimizer step. On a GPU, each update waits for the device.

    Args:
        model: the network, already on its device.
        kind: `ema`: w̄ ← decay · w̄ + (1 − decay) · w, from the first step on (Polyak and Juditsky 1992); `swa`: the
            mean of the weights after the steps that follow `start` (Izmailov et al. 2018, arXiv 1803.05407).
        decay: of EMA, at least 0 and less than 1.
        start: fraction of the steps after which SWA averages, at least 0 and less than 1.
        steps: optimizer steps of the whole run.

    Raises:
        ValueError: an unknown kind, or a fraction outside its range.
    """

    def __init__(self, model: nn.Module, kind: Kind, *, decay: float, start: float, steps: int) -> None:
        if kind not in ("ema", "swa"):
            raise ValueError(f"average must be none, ema or swa, not {kind!r}")
        for name, fraction in (("average_decay", decay), ("average_start", start)):
            if not 0 <= fraction < 1:
                raise ValueError(f"{name} must be at least 0 and less than 1, not {fraction!r}")
        self._model = model
        self._after = start * steps if kind == "swa" else 0
        # The parameters alone, because a copy of the model would include the hooks of its regularizer.
        self._weights = nn.ParameterList(model.parameters())
        self._averaged = AveragedModel(
            self._weights, multi_avg_fn=get_ema_multi_avg_fn(decay) if kind == "ema" else None
        )

    def update(self, step: int) -> None:
        """Add the weights after optimizer step `step` (from 1), once averaging has begun."""
        if step > self._after:
            self._averaged.update_parameters(self._weights)

    @property
    def has_begun(self) -> bool:
        return int(self._averaged.n_averaged) > 0  # on the CPU

    @contextmanager
    def applied(self, wrapped: nn.Module, batches: Iterable[Batch]) -> Iterator[None]:
        """Give the model the averaged weights inside a `with`, if averaging has begun.

        The statistics of BatchNorm are computed again with these weights, by one pass over `batches` in training mode.
        At the end, weights, buffers and random generators are restored bit for bit.

        Args:
            wrapped: the same model, as it is called.
            batches: training batches.
        """
        if not self.has_begun:
            yield
            return
        tensors = [*self._model.parameters(), *self._model.buffers()]
        own, generators = [tensor.detach().clone() for tensor in tensors], seeding.generators()
        momenta = {m: m.momentum for m in self._model.modules() if isinstance(m, _BatchNorm)}
        try:
            _copy(self._averaged.parameters(), self._model.parameters())
            update_bn(batches, _ByName(wrapped))
            yield
        finally:
            _copy(own, tensors)
            for module, momentum in momenta.items():  # `update_bn` does not restore them if a signal ends it
                module.momentum = momentum
            seeding.set_generators(generators)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._averaged.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._averaged.load_state_dict(state)


class _ByName(nn.Module):
    """Hands the inputs of a batch to a model by keyword."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model(**batch.inputs)


@torch.no_grad()
def _copy(sources: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
