"""The autograd graph of a loss."""

from collections import deque
from collections.abc import Container, Iterator
from typing import Any, cast

import torch
from torch import Tensor

_ACCUMULATE = type(torch.autograd.graph.get_gradient_edge(torch.empty(0, requires_grad=True)).node)


def nodes(loss: Tensor, stops: Container[object] = ()) -> Iterator[tuple[Any, Any]]:
    """Yield (node, next node) for each edge of the graph of `loss`, nearest first, without edges from `stops`."""
    seen, open_ = {loss.grad_fn}, deque([loss.grad_fn])
    while open_:
        node = open_.popleft()
        if node is None or node in stops:
            continue
        for following, _ in node.next_functions:
            if following is None:
                continue
            yield node, following
            if following not in seen:
                seen.add(following)
                open_.append(following)


def leaves(loss: Tensor) -> list[Tensor]:
    """Return the tensors to which the backward of `loss` adds a gradient. Works after that backward too.

    What a reentrant checkpoint computes is not seen: its graph is made in the backward.
    """
    if loss.is_leaf:
        return [loss]
    found = (leaf_of(node) for _, node in nodes(loss))
    return list({id(leaf): leaf for leaf in found if leaf is not None}.values())


def leaf_of(node: Any) -> Tensor | None:
    """Return the tensor to which this node adds a gradient; None for other nodes."""
    return None if type(node) is not _ACCUMULATE else cast(Any, node).variable
