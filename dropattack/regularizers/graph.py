"""What a loss's autograd graph reaches."""

from collections.abc import Iterator

import torch
from torch import Tensor

_ACCUMULATE = type(torch.autograd.graph.get_gradient_edge(torch.empty(0, requires_grad=True)).node)


def nodes(loss: Tensor, stop: object = None) -> Iterator[tuple[object, object]]:
    """(node, the node after it) for each edge of the graph of `loss`; the walk does not go on behind `stop`."""
    seen, open_ = {loss.grad_fn}, [loss.grad_fn]
    while open_:
        node = open_.pop()
        if node is None or node is stop:
            continue
        for following, _ in node.next_functions:
            if following is None:
                continue
            yield node, following
            if following not in seen:
                seen.add(following)
                open_.append(following)


def leaves(loss: Tensor) -> list[Tensor]:
    """The tensors to which the backward of `loss` adds a gradient. Also after that backward.

    What a reentrant checkpoint computes is not seen: its graph is made in the backward.
    """
    if loss.is_leaf:
        return [loss]
    found = {id(node.variable): node.variable for _, node in nodes(loss) if type(node) is _ACCUMULATE}  # type: ignore[attr-defined]
    return list(found.values())


def leaf_of(node: object) -> Tensor | None:
    """The tensor to which this node adds a gradient; None for a node that computes."""
    return node.variable if type(node) is _ACCUMULATE else None  # type: ignore[attr-defined]
