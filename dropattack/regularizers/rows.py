"""An embedding matrix, attacked on the rows of the batch: no pass but the last costs anything of the vocabulary's size.

In every pass but the last the gradient that reaches the embedding's output is cut off there, and summed up for each row
that was looked up ([rows, D] instead of [V, D]). The last pass runs uncut: its dense gradient is made once, as
in a plain step, and the rows of the earlier passes are added to it before anybody (a hook of DDP's, the optimizer) sees
it. A row outside the batch has a zero gradient, so nothing is lost against attacking the whole matrix.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dropattack.regularizers.gradients import checked, isolated
from dropattack.regularizers.graph import leaf_of
from dropattack.regularizers.targets import Weight, upcast


@dataclass(frozen=True)
class Rows:
    """The rows that a pass looked up: `index` [n] in ascending order, `inverse` [tokens] into it.

    On a GPU, n is the number of tokens, for the number of distinct ones is not known without waiting for the device:
    the last row fills the slots that are left, `used` [n] tells them apart (None: all are used), and whatever is
    gathered for them is zero.
    """

    index: Tensor
    inverse: Tensor
    used: Tensor | None

    @classmethod
    def of(cls, ids: Tensor) -> "Rows":
        if ids.device.type != "cpu":
            return cls.without_waiting(ids)
        index, inverse = ids.unique(return_inverse=True)
        return cls(index, inverse, None)

    @classmethod
    def without_waiting(cls, ids: Tensor) -> "Rows":
        ordered, order = ids.sort()
        first = torch.ones_like(ordered, dtype=torch.bool)
        first[1:] = ordered[1:] != ordered[:-1]
        slot = first.cumsum(0) - 1
        index = ordered[-1:].repeat(len(ordered)).scatter_(0, slot, ordered)
        inverse = torch.empty_like(slot).scatter_(0, order, slot)
        return cls(index, inverse, torch.arange(len(ordered), device=ids.device) <= slot[-1])

    def sum(self, gradient: Tensor, padding_id: int | None) -> Tensor:
        """[tokens, D] → [n, D]; a padding row gets no gradient, as in `nn.Embedding`."""
        total = gradient.new_zeros(len(self.index), gradient.shape[-1]).index_add_(0, self.inverse, gradient)
        return total if padding_id is None else total.masked_fill_((self.index == padding_id).unsqueeze(-1), 0.0)

    def take(self, values: Tensor, rows: "Rows") -> Tensor:
        """`values` [m, D] of other `rows`, in the order of these; zero where the other pass did not look a row up."""
        at, found = rows._find(self.index)
        return values[at] * (found if self.used is None else found & self.used).unsqueeze(-1)

    def add(self, r: Tensor, matrix: Tensor, values: Tensor) -> None:
        """Add `r` [n, D] to these rows of `matrix`, which has `values` there; 16-bit sums are rounded once."""
        if r.dtype == matrix.dtype:
            matrix.index_add_(0, self.index, r if self.used is None else r * self.used.unsqueeze(-1))
            return
        moved = values + r
        if self.used is not None:  # the slots that are left are the last row too, and must write the same
            moved = torch.where(self.used.unsqueeze(-1), moved, moved.index_select(0, self.used.sum().reshape(1) - 1))
        matrix.index_copy_(0, self.index, moved.to(matrix.dtype))

    def _find(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        at = torch.searchsorted(self.index, ids.contiguous()).clamp_(max=len(self.index) - 1)
        return at, self.index[at] == ids


class _Lookup:
    """One call of the embedding: the ids [...] and later the gradient [..., D] of the looked-up rows."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids
        self.version = None if ids.is_inference() else ids._version  # a loop may write all batches into one tensor
        self.gradient: Tensor | None = None


class _Cut(torch.autograd.Function):
    """The embedding's output itself, whose gradient goes to a `_Lookup` and no further.

    Not so in a call of `torch.autograd.grad` (a penalty on the gradient of the matrix, say): through that it passes.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, lookup: _Lookup) -> Tensor:
        ctx.lookup = lookup
        ctx.mark_dirty(output)  # no copy, and no view: the model may change it in place
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:  # type: ignore[override]
        if not torch.autograd._is_checkpoint_valid():  # only some inputs are asked for
            return gradient, None
        checked(gradient)
        earlier = ctx.lookup.gradient
        ctx.lookup.gradient = gradient if earlier is None else earlier + gradient
        return None, None


class EmbeddingRows(Weight):
    """The weight of one `nn.Embedding`, on the rows of the batch. `gradient` is [n, D] for the clean pass's n rows.

    Where that cannot be exact it is a plain `Weight`, slower and as exact: what the module returns is not the rows as
    they were looked up (its forward was replaced, another hook changed them), the matrix gets a gradient by another way
    too (used outside its module), a hook on the parameter waits for its gradient, the call is checkpointed or compiled.
    """

    def __init__(self, name: str, parameter: nn.Parameter, module: nn.Embedding) -> None:
        super().__init__(name, parameter, is_table=True)
        self._module = module
        self._dense = False
        self.begin()

    def begin(self) -> None:
        super().begin()
        self._rows: Rows | None = None
        self._looked_up: list[_Lookup] = []
        self._pending: list[tuple[Rows, Tensor]] = []

    @property
    def result(self) -> Any:
        return self.gradient, self._rows, self._looked_up

    @result.setter
    def result(self, result: Any) -> None:
        self.gradient, self._rows, self._looked_up = result

    @contextmanager
    def listening(self, *, read: bool, keep: bool, last: bool) -> Iterator[None]:
        if last:
            with self._adding_pending():
                yield
            return
        if self._dense or self.parameter._backward_hooks:
            with super().listening(read=read, keep=keep, last=last):
                yield
            return
        lookups: list[_Lookup] = []

        def cut(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Tensor | None:
            if torch.compiler.is_compiling() or not isinstance(output, Tensor) or not output.requires_grad:
                return None
            ids = self._looked_up_in(output)
            if ids is None:
                return None
            lookups.append(_Lookup(ids))
            return _Cut.apply(output, lookups[-1])

        with ExitStack() as stack:
            hook = self._module.register_forward_hook(cut, prepend=True, with_kwargs=True)
            stack.callback(hook.remove)
            own = stack.enter_context(isolated([self.parameter], keep))
            yield
        (dense,) = own()
        found = [lookup for lookup in lookups if lookup.gradient is not None]
        if not found:
            self._dense = dense is not None
            self.gradient = upcast(dense) if read else self.gradient
            return
        rows, values = self._reduce(found)
        if keep:
            self._keep(rows, values)
        if dense is not None:
            self._dense, self._rows = True, None
            if read:
                self.gradient = upcast(dense).index_add(0, rows.index, values)
        elif read:
            self._rows = self._rows or rows
            self.gradient = values if rows is self._rows else self._rows.take(values, rows)

    def _looked_up_in(self, output: Tensor) -> Tensor | None:
        """Return the ids whose unchanged rows of this matrix are `output`; None if it is something else."""
        node: Any = output.grad_fn
        if type(node).__name__ != "EmbeddingBackward0" or node._saved_scale_grad_by_freq:
            return None
        padding = -1 if self._module.padding_idx is None else self._module.padding_idx
        if leaf_of(node.next_functions[0][0]) is not self.parameter or (node._saved_padding_idx - padding) % 2**64:
            return None
        # Under a checkpoint what is saved is not there to be read.
        if torch._C._autograd._top_saved_tensors_default_hooks(True) or torch._C._are_functorch_transforms_active():
            return None
        return node._saved_indices

    def _reduce(self, lookups: list[_Lookup]) -> tuple[Rows, Tensor]:
        """Return the rows of `lookups`, and the sums of their gradients per row."""
        # The passes of a step look the same ids up, mostly as the very same tensor: sort it once.
        if self._rows is None or len(lookups) != len(self._looked_up) or any(map(_differ, lookups, self._looked_up)):
            rows = Rows.of(torch.cat([lookup.ids.reshape(-1) for lookup in lookups]).long())
            if self._rows is None:
                self._looked_up = lookups
        else:
            rows = self._rows
        found = [upcast(lookup.gradient) for lookup in lookups]
        gradient = torch.cat([one.reshape(-1, one.shape[-1]) for one in found])
        for lookup in lookups:  # some are kept to the end of the step
            lookup.gradient = None
        return rows, rows.sum(gradient, self._module.padding_idx)

    def _keep(self, rows: Rows, values: Tensor) -> None:
        if self._pending and self._pending[-1][0] is rows:
            self._pending[-1] = (rows, self._pending[-1][1] + values)
        else:
            self._pending.append((rows, values))

    @contextmanager
    def _adding_pending(self) -> Iterator[None]:
        """Add the earlier passes' rows to the gradient that the pass inside makes."""
        if not self._pending:
            yield
            return

        def add(gradient: Tensor) -> Tensor:
            while self._pending:
                rows, values = self._pending.pop()
                values = values.to(gradient.dtype)
                if gradient.is_sparse:
                    gradient = gradient + torch.sparse_coo_tensor(
                        rows.index[None], values, gradient.shape, check_invariants=False
                    )
                elif self._dense:
                    gradient = gradient.index_add(0, rows.index, values)
                else:
                    # In place: the lookup's backward has just made this tensor, for this parameter alone.
                    gradient.index_add_(0, rows.index, values)
            return gradient

        # Of the node that adds to `.grad`, and not of the tensor: a torch.autograd.grad in the forward calls those too.
        node = torch.autograd.graph.get_gradient_edge(self.parameter).node
        hook = node.register_prehook(lambda gradients: (add(gradients[0]),))
        try:
            yield
        finally:
            hook.remove()
        if self._pending:  # the last pass did not use the matrix
            if self.parameter.grad is None:
                self.parameter.grad = torch.zeros_like(self.parameter)
            self.parameter.grad = add(self.parameter.grad)
            for late in (getattr(self.parameter, "_post_accumulate_grad_hooks", None) or {}).values():
                late(self.parameter)

    @property
    def is_moved_whole(self) -> bool:
        return self._rows is None

    @contextmanager
    def shifted(self, r: Tensor | None) -> Iterator[None]:
        if r is None or self._rows is None:
            with super().shifted(r):
                yield
            return
        index = self._rows.index
        with torch.no_grad():
            backup = self.parameter.index_select(0, index)
        try:
            with torch.no_grad():
                self._rows.add(r, self.parameter, backup)
            yield
        finally:
            with torch.no_grad():
                self.parameter.index_copy_(0, index, backup)

    def value(self) -> Tensor:
        if self._rows is None:
            return super().value()
        value = self.parameter.detach().index_select(0, self._rows.index)
        return value if self._rows.used is None else value * self._rows.used.unsqueeze(-1)

    def measured(self) -> Tensor:
        return super().measured() if self._rows is None else self.value()


def _differ(one: _Lookup, other: _Lookup) -> bool:
    return one.ids is not other.ids or one.version != other.version


def is_row_wise(module: nn.Embedding, leaf: str) -> bool:
    """Return whether the parameter `leaf` of `module` is a lookup table that `EmbeddingRows` can attack."""
    return leaf == "weight" and module.max_norm is None
