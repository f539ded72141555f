"""The training step of the authors' notebooks, in our own words: what DropAttack is compared with and timed against.

Per batch: the clean loss and its gradients, which are kept. Then, for each attacked tensor in turn, K times: step by
ε·g/‖g‖ under a Bernoulli mask that is drawn once, forward, loss / K, backward; `g` is whatever has accumulated in
`.grad` by then. After a tensor, it and the clean gradients are put back. Two ways of getting the sum's gradient:

* `notebook_step`: literally. All graphs are retained, the losses are summed at the end, the gradients are zeroed and
  one more backward goes through all the graphs. By then the weights, changed through `.data` behind autograd's back,
  are others than those of the forwards, and what that backward multiplies with depends on what each operation saved.
* `exact_step`: each pass's gradient is taken from its own backward, before the next change of the weights.

Both leave the sum's gradient in `.grad`, and return the losses [clean, one a target] before any optimizer step.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Draw = Callable[[str, Tensor], Tensor]  # (parameter's name, parameter) → mask of its shape


def bernoulli(p: float) -> Draw:
    """Masks as the notebooks draw them: of the whole tensor, p the probability of being attacked."""
    return lambda name, weight: torch.bernoulli(torch.full_like(weight, p))


def attack(weight: nn.Parameter, mask: Tensor, epsilon: float) -> None:
    """One step along the gradient that `.grad` holds, in place and unseen by autograd. No projection: steps add up."""
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
            backup  # another storage: a graph that saved a view of the old one still sees the perturbed values
        )
        for other, grad in kept.items():
            # The notebooks assign `grad` itself, so the second target's passes corrupt what a third would start from.
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
            whole[other] += parameters[other].grad - grad  # what this tensor's passes alone added
            parameters[other].grad = grad.clone()
    for other, grad in whole.items():
        parameters[other].grad = grad
    return losses
