"""FreeLB: every pass's gradient serves the ascent and the descent (Zhu et al. 2020, arXiv 1909.11764, algorithm 1)."""

from collections.abc import Iterable

from torch import Tensor, nn

from dropattack.regularizers.base import DropoutMasks, Regularizer
from dropattack.regularizers.checks import at_least_one, non_negative
from dropattack.regularizers.functional import add, project_l2, uniform_start
from dropattack.regularizers.naming import required, resolve
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Activation, Start, Target


class FreeLB(Regularizer):
    """(1/K) Σ_{k<K} L(x + δ_k), δ_{k+1} = Π_ε(δ_k + α g_k/‖g_k‖), δ_0 uniform, each example by its own norm.

    Its targets are activations: a module's output, or the input. An embedding's weight name stands for the embedding's
    output. There is no clean pass: the first pass is already perturbed by δ_0 (it is the one that BatchNorm sees).

    Args:
        model: The network.
        targets: What is attacked.
        alpha: Length of a step ("adversarial learning rate").
        steps: K.
        epsilon: Radius of the projection; None for no projection. (The authors' settings have both.)
        init: Bound on ‖δ_0‖ of an example ("initial magnitude"); what an embedding's `padding_idx` marks is spared.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        alpha: float = 0.1,
        steps: int = 3,
        epsilon: float | None = None,
        init: float = 0.1,
        *,
        dropout_masks: DropoutMasks = "fresh",
        seed: int | None = None,
        batch_dim: int | None = None,
    ) -> None:
        self.alpha = non_negative(alpha, "alpha")
        self.steps = at_least_one(steps, "steps")
        self.epsilon = None if epsilon is None else non_negative(epsilon, "epsilon")
        self.init = non_negative(init, "init")
        self.passes = self.steps
        super().__init__(
            model, required(targets, model, "FreeLB"), dropout_masks=dropout_masks, seed=seed, batch_dim=batch_dim
        )

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        modules = dict(self.model.named_modules())
        names = [targets] if isinstance(targets, str) else list(targets)
        owners = {n: n.removesuffix(".weight") for n in names if isinstance(n, str) and n.endswith(".weight")}
        tables = {n: owner for n, owner in owners.items() if isinstance(modules.get(owner), nn.Embedding)}
        found = resolve(self.model, [tables.get(n, n) for n in names])
        for target in found:
            if not isinstance(target, Activation):
                raise ValueError(
                    f"FreeLB perturbs each example, and {target.name!r} is a weight: name a module (its output is "
                    "attacked), an embedding's weight, or '<input>'"
                )
        return found

    def _attack(self, run: Passes) -> None:
        shifts: list[Tensor | Start | None] = [self._start] * len(self.targets)
        for k in range(self.steps):
            final = k == self.steps - 1
            with self._shifted(self.targets, shifts):
                run(scale=1 / self.steps, read=() if final else self.targets)
            if not final:
                shifts = [self._ascend(t) for t in self.targets]

    def _start(self, value: Tensor, keep: Tensor | None) -> Tensor:
        return uniform_start(value.detach(), self.init, keep, self._generator(value.device))

    def _ascend(self, target: Target) -> Tensor:
        assert isinstance(target, Activation)
        delta = add(target.applied, self._step(target, self.alpha))
        return delta if self.epsilon is None else project_l2(delta, self.epsilon, per_example=True)
