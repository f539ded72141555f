"""The distribution that two sets of logits stand for, and the divergence between them."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dropattack.regularizers.checks import one_of
from dropattack.regularizers.functional import bernoulli_kl, gaussian_kl, kl, symmetric_bernoulli_kl, symmetric_kl
from dropattack.regularizers.graph import nodes
from dropattack.regularizers.passes import Output, needed
from dropattack.regularizers.targets import upcast

Divergence = Literal["softmax", "bernoulli", "gaussian"]

_SYMMETRIC = {"softmax": symmetric_kl, "bernoulli": symmetric_bernoulli_kl, "gaussian": gaussian_kl}
_DIRECTED = {"softmax": kl, "bernoulli": bernoulli_kl, "gaussian": gaussian_kl}
# The functions that a loss computes from its logits, by autograd's names. A sigmoid or softmax says more than the
# powers and absolute values that may follow (Brier's score, a focal loss).
_SOFTMAX = ("LogSoftmaxBackward0", "SoftmaxBackward0", "LogsumexpBackward0", "NllLossBackward0", "NllLoss2DBackward0")
_NORMALISED = ("LogSoftmaxBackward0", "SoftmaxBackward0", "LogsumexpBackward0", "ExpBackward0")
_BERNOULLI = (
    *("BinaryCrossEntropyWithLogitsBackward0", "BinaryCrossEntropyBackward0"),
    *("LogSigmoidBackward0", "SigmoidBackward0", "SoftplusBackward0"),
)
_DISTANCE = ("MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0")
_GAUSSIAN = (*_DISTANCE, "PowBackward0", "AbsBackward0")
_COPIES = ("ToCopyBackward0", "AliasBackward0", "CloneBackward0")
_LAYERS = ("AddmmBackward0", "MmBackward0", "BmmBackward0", "ConvolutionBackward0", "EmbeddingBackward0")


class Meaning(NamedTuple):
    """How a loss reads its logits.

    Attributes:
        divergence: Which distribution each position has.
        class_dim: Where in the logits the classes are.
        ignored: Where the loss leaves out positions, in the shape of the logits without their classes; None: nowhere.
    """

    divergence: Divergence
    class_dim: int = -1
    ignored: Tensor | None = None


class _Behind:
    """The nodes at which a search from the loss can end: the logits' own, and all that were made before these.

    Autograd numbers its nodes in the order in which it makes them, and a node depends on earlier ones alone.
    """

    def __init__(self, ends: list[Any]) -> None:
        self._ends = ends
        self._first = min(map(self._number, ends))

    def __contains__(self, node: Any) -> bool:
        return node in self._ends or self._number(node) < self._first

    @staticmethod
    def _number(node: Any) -> int:
        return (node._sequence_nr() + 1) % 2**64 - 1  # -1: a leaf's


def nodes_between(loss: Tensor, logits: Tensor) -> list[Any]:
    """Return the nodes of the graph of `loss` through which it depends on `logits`."""
    if not logits.requires_grad:
        return []
    end: Any = torch.autograd.graph.get_gradient_edge(logits).node
    ends = [end]
    while type(end).__name__ in _COPIES:  # mixed precision hands a copy out
        end = end.next_functions[0][0]
        ends.append(end)
    before = defaultdict(list)
    for node, following in nodes(loss, stops=_Behind(ends)):
        before[following].append(node)
    found = dict.fromkeys(node for end in ends for node in before.get(end, ()))
    open_ = list(found)
    while open_:
        for node in before.get(open_.pop(), ()):
            if node not in found:
                found[node] = None
                open_.append(node)
    return list(found)


def _nearest(loss: Tensor) -> set[str]:
    """Return the function that gave the loss, if its path to the logits shows none (with DDP's sink between them)."""
    layers: set[Any] = set()
    for _, node in nodes(loss, stops=layers):
        name = type(node).__name__
        if name in (*_SOFTMAX, *_BERNOULLI, *_DISTANCE):
            return {name}
        if name in _LAYERS:
            layers.add(node)
    return set()


def meaning(
    loss: Tensor, logits: Tensor, divergence: Divergence | None, has_mask: bool = False, method: str = "R-Drop"
) -> Meaning:
    """Return how the loss reads the logits [B, …]. Errors name the `method`.

    Raises:
        ValueError: The loss does not show it, a softmax is over a single class, or neither the loss nor a mask shows
            which of the positions [B, T] count.
    """
    on_the_way = nodes_between(loss, logits)
    names = {type(node).__name__ for node in on_the_way}
    if divergence is None:
        if _takes_probabilities(names):
            raise ValueError(
                f"{method} compares logits, and this loss takes the logarithm of the values that came with it, which "
                "are therefore probabilities: return the values before the sigmoid or softmax as logits"
            )
        if not names.intersection((*_SOFTMAX, *_BERNOULLI, *_GAUSSIAN)):
            names = _nearest(loss)
        found: list[Divergence] = []
        if names.intersection(_SOFTMAX):
            found.append("softmax")
        if names.intersection(_BERNOULLI):
            found.append("bernoulli")
        if not found and names.intersection(_GAUSSIAN):
            found.append("gaussian")
        if len(found) != 1:
            what = f"takes them for both {' and '.join(found)}" if found else "does not show it"
            raise ValueError(
                f"{method} has to know what the logits are, and the loss that came with them "
                f"{what}: say divergence='softmax' (one class of several), 'bernoulli' (independent labels) or "
                "'gaussian' (regression)"
            )
        divergence = found[0]
    if divergence != "softmax":
        return Meaning(divergence, 1 if logits.dim() > 3 else -1)  # [B, C, H, W], as convolutions give them
    dim = _class_dim(on_the_way, names, logits)
    if logits.dim() < 2 or logits.shape[dim] < 2:
        raise ValueError(
            f"{method} compares softmaxes, and logits of shape {tuple(logits.shape)} leave no choice between classes: "
            "say divergence='bernoulli' or 'gaussian', or return logits [B, C]"
        )
    if logits.dim() < 3 or has_mask:
        return Meaning(divergence, dim)
    positions = logits.movedim(dim, -1).shape[:-1]
    marked = [one for one in _ignored(on_the_way) if one.numel() == positions.numel()]
    # A flat one of a time-major loss has the positions in another order.
    ignored = next((one for one in marked if one.dim() > 1 or not any(map(_moves_first, on_the_way))), None)
    if ignored is None:
        raise ValueError(
            f"the loss does not have a label for each position of the logits, whose shape is {tuple(logits.shape)}: "
            "return dropattack.Output(loss, logits, mask) with the positions that count"
        )
    return Meaning(divergence, dim, ignored.reshape(positions))


def _takes_probabilities(names: set[str]) -> bool:
    """Return whether a loss that depends on its logits by these functions reads them as probabilities."""
    if "BinaryCrossEntropyBackward0" in names:
        return "SigmoidBackward0" not in names
    return "LogBackward0" in names and not names.intersection(_NORMALISED)


def _class_dim(on_the_way: list[Any], names: set[str], logits: Tensor) -> int:
    softmax = next((n for n in on_the_way if type(n).__name__ in ("LogSoftmaxBackward0", "SoftmaxBackward0")), None)
    if softmax is None or logits.dim() < 3:
        return -1
    shape = tuple(softmax._input_metadata[0].shape)
    dim = _signed(softmax._saved_dim)
    turned = any(name.startswith(("Transpose", "Permute", "TBackward", "Movedim")) for name in names)
    if shape == tuple(logits.shape) and not turned:
        return dim
    return -1 if logits.shape[-1] == shape[dim] else logits.shape.index(shape[dim])


def _moves_first(node: Any) -> bool:
    """Return whether this node exchanges the first of three or more dimensions for another."""
    dims = len(node._input_metadata[0].shape)
    if dims < 3:
        return False
    if type(node).__name__ == "PermuteBackward0":
        return _signed(node._saved_dims[0]) % dims != 0
    name = "TransposeBackward0"
    return type(node).__name__ == name and 0 in (_signed(node._saved_dim0) % dims, _signed(node._saved_dim1) % dims)


def _signed(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


def _ignored(on_the_way: list[Any]) -> Iterator[Tensor]:
    """Yield where the loss ignores something: `ignore_index`, or what it fills with a constant (as label smoothing)."""
    for node in on_the_way:
        if type(node).__name__ in ("NllLossBackward0", "NllLoss2DBackward0"):
            yield node._saved_target == _signed(node._saved_ignore_index)
    for node in on_the_way:
        if type(node).__name__ == "MaskedFillBackward0":
            yield node._saved_mask.expand(tuple(node._input_metadata[0].shape))


class Comparison:
    """The divergence between the logits of two forwards, as their loss reads them.

    Args:
        method: The method's name, for errors.
        divergence: What the logits are; None: as the loss of each comparison reads them, for tasks may take turns.

    Raises (in a comparison): ValueError as `meaning`, if there are no logits, or if a mask does not fit them.
    """

    def __init__(self, method: str, divergence: Divergence | None) -> None:
        self._method = method
        self._divergence = one_of(divergence, "divergence", (None, "softmax", "bernoulli", "gaussian"))

    def logits(self, output: Output) -> Tensor:
        return needed(output.logits, self._method)

    def symmetric(self, one: Output, two: Output) -> Tensor:
        """Return (KL(p‖q) + KL(q‖p)) / 2, averaged over the positions that count."""
        return self._apart(_SYMMETRIC, self.logits(one), self.logits(two), one)

    def directed(self, p: Tensor, output: Output) -> Tensor:
        """Return KL(p‖q), where q are the logits of `output`, averaged over the positions that count in it."""
        return self._apart(_DIRECTED, p, self.logits(output), output)

    def _apart(self, divergences: Any, p: Tensor, q: Tensor, seen: Output) -> Tensor:
        """`seen`: the output, with its graph, that tells which positions count."""
        mask = seen.mask
        meant = meaning(seen.loss, self.logits(seen), self._divergence, mask is not None, self._method)
        if mask is None:
            ignored = meant.ignored
            mask = None if ignored is None else ~ignored
        p, q = (upcast(x.unsqueeze(-1) if x.dim() < 2 else x.movedim(meant.class_dim, -1)) for x in (p, q))
        if mask is not None and mask.shape != p.shape[:-1]:
            raise ValueError(
                f"the mask has shape {tuple(mask.shape)}, and there are logits at {tuple(p.shape[:-1])}: give one "
                "value for each"
            )
        return divergences[meant.divergence](p, q, None if mask is None else mask.bool())
