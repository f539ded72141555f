"""The training step of the authors' notebooks, reimplemented as the baseline for comparisons and timings.

Per batch: compute the clean loss and its gradients, and keep the gradients. Then, for each attacked tensor in turn, K
times: step by ε·g/‖g‖ under a Bernoulli mask drawn once, forward, loss / K, backward, where `g` is whatever has
accumulated in `.grad` by then. After each tensor, restore it and the clean gradients. The gradient of the sum can be
computed in two ways:

* `notebook_step`: literally. All graphs are retained, the losses are summed at the end, the gradients are zeroed, and a
  final backward goes through all graphs. By then the weights, modified through `.data` without autograd noticing, are
  not those of the forwards, so the result depends on which tensors each operation saved.
* `exact_step`: each pass's gradient is taken from its own backward, before the weights change again.

Both leave the gradient of the sum in `.grad`, and return the losses [clean, one per target] before any optimizer step.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Draw = Callable[[str, Tensor], Tensor]  # (parameter's name, parameter) → mask of its shape


def bernoulli(p: float) -> Draw:
    """Return a drawer of masks as in the notebooks: for the whole tensor, p is the probability of being attacked."""
    return lambda name, weight: torch.bernoulli(torch.full_like(weight, p))


def attack(weight: nn.Parameter, mask: Tensor, epsilon: float) -> None:
    """Step along the gradient in `.grad`, in place and invisible to autograd. No projection: steps accumulate."""
    norm = weight.grad.norm()
    if norm != 0 and not torch.isnan(norm):
        weight.data.add_(epsilon * weight.grad / norm * mask)


def notebook_step(
    model: nn.Module, forward: Callable[[], Tensor], targets: Sequence[str], *, epsilon: float, steps: int, draw: Draw
) -> list[Tensor]:
    parameters = dict(model.named_parameters())
    clean = forward()
    clean.backward(retain_graph=True)
    kept = {name: w.grad.clone() for name, w in parameters.items() if w.grad is not None}
    losses = [clean]
    for name in targets:
        weight = parameters[name]
        backup, mask = weight.data.clone(), draw(name, weight.data)
        adversarial = torch.zeros_like(clean)
        for _ in range(steps):
            attack(weight, mask, epsilon)
            loss = forward() / steps
            loss.backward(retain_graph=True)
            adversarial = adversarial + loss
        weight.data = (
            backup  # a different storage: a graph that saved a view of the old one still sees the perturbed values
        )
        for other, grad in kept.items():
            # The notebooks assign `grad` without a copy, so the second target's passes corrupt the third's start.
            parameters[other].grad = grad.clone()
        losses.append(adversarial)
    model.zero_grad()
    torch.stack(losses).sum().backward()
    return [loss.detach() for loss in losses]


def exact_step(
    model: nn.Module, forward: Callable[[], Tensor], targets: Sequence[str], *, epsilon: float, steps: int, draw: Draw
) -> list[Tensor]:
    parameters = dict(model.named_parameters())
    clean = forward()
    clean.backward()
    kept = {name: w.grad.clone() for name, w in parameters.items() if w.grad is not None}
    whole = {name: grad.clone() for name, grad in kept.items()}
    losses = [clean.detach()]
    for name in targets:
        weight = parameters[name]
        backup, mask = weight.data.clone(), draw(name, weight.data)
        losses.append(torch.zeros_like(losses[0]))
        for _ in range(steps):
            attack(weight, mask, epsilon)
            loss = forward() / steps
            loss.backward()
            losses[-1] += loss.detach()
        weight.data = backup
        for other, grad in kept.items():
            whole[other] += parameters[other].grad - grad  # contribution of this tensor's passes alone
            parameters[other].grad = grad.clone()
    for other, grad in whole.items():
        parameters[other].grad = grad
    return losses
