"""Passes side by side: forwards that move one target each, in copies, so that a GPU can run them at the same time.

A pass that moves a weight in place has to end before another may begin. Here the moved value is a copy, which takes the
weight's place in its modules while a forward of its own is launched, on a stream of its own. One backward then serves
all of these forwards: autograd runs each one's part on the stream of its forward, and adds up what they share.
"""

import sys
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from warnings import catch_warnings, filterwarnings

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

_STREAMS: dict[tuple[int, int], Any] = {}  # by device and number, for good: cuBLAS keeps a workspace for each it saw


class Lanes:
    """Streams beside the current one, which waits for them on `join` and at the end.

    Inside the block everything that the current stream had been given before is done first, in every lane; so memory
    that the lanes and the current stream hand each other is never written too early.

    Args:
        model: Where it lies on a CPU or on several GPUs, all lanes are the current stream.
        count: How many.
        in_order: All lanes are the current stream: one forward reads what another writes.
    """

    def __init__(self, model: nn.Module | None, count: int, *, in_order: bool = False) -> None:
        devices = {p.device for p in model.parameters()} if model is not None else set()
        self._streams: list[Any] = []
        self._count = count
        if len(devices) == 1 and next(iter(devices)).type == "cuda" and not in_order:
            device = devices.pop()
            if not _has_cuda_graphs(device):
                self._current = torch.cuda.current_stream(device)
                self._streams = [_stream(device, n) for n in range(count)]

    def __enter__(self) -> "Lanes":
        for stream in self._streams:
            stream.wait_stream(self._current)
        return self

    def __iter__(self) -> Iterator[AbstractContextManager]:
        for n in range(self._count):
            yield torch.cuda.stream(self._streams[n]) if self._streams else nullcontext()

    def join(self) -> None:
        for stream in self._streams:
            self._current.wait_stream(stream)

    def __exit__(self, *_: object) -> None:
        self.join()


def _stream(device: torch.device, n: int) -> Any:
    key = (device.index or 0, n)
    if key not in _STREAMS:
        _STREAMS[key] = torch.cuda.Stream(device)
    return _STREAMS[key]


def _has_cuda_graphs(device: torch.device) -> bool:
    """Whether a compiled model replays CUDA graphs: these share their memory, so one has to end before the next."""
    trees = sys.modules.get("torch._inductor.cudagraph_trees")
    return trees is not None and trees.get_manager(device.index or 0, create_if_none_exists=False) is not None


@contextmanager
def replaced(model: nn.Module | None, parameter: nn.Parameter, by: Tensor) -> Iterator[None]:
    """`by` stands in the place of `parameter` wherever a module of `model` holds it; the parameter is not touched."""
    modules = () if model is None else model.modules()
    places = [(m, name) for m in modules for name, p in m._parameters.items() if p is parameter]
    try:
        for module, name in places:
            _put(module, name, by)
        yield
    finally:
        for module, name in places:
            _put(module, name, parameter)


def _put(module: nn.Module, name: str, tensor: Any) -> None:
    module._parameters[name] = tensor
    if isinstance(module, nn.RNNBase) and name in module._flat_weights_names:
        # The list that a RNN computes with. It would notice the change and move all weights into a new buffer, unless
        # what it remembers of the list changes too.
        n = module._flat_weights_names.index(name)
        module._flat_weights[n] = tensor
        module._flat_weight_refs[n] = weakref.ref(tensor)


@contextmanager
def weights_stay(model: nn.Module | None) -> Iterator[None]:
    """No RNN of `model` moves its weights into a new buffer, which many a forward does at its start.

    One lane would read what another is still writing. cuDNN's advice to do it is not shown: it copies such weights.
    """
    rnns = [] if model is None else [m for m in model.modules() if isinstance(m, nn.RNNBase)]
    with catch_warnings():
        if rnns:
            filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        try:
            for rnn in rnns:
                rnn.__dict__["flatten_parameters"] = _nothing
            yield
        finally:
            for rnn in rnns:
                rnn.__dict__.pop("flatten_parameters", None)


def _nothing() -> None:
    pass


def reads_directly(loss: Tensor, parameter: nn.Parameter, copy: Tensor) -> bool:
    """Whether the graph of `loss` comes to `parameter` by another way than through its `copy`."""
    seen, open_ = {copy.grad_fn}, [loss.grad_fn]
    while open_:
        node = open_.pop()
        if node is None or node in seen:
            continue
        if getattr(node, "variable", None) is parameter:
            return True
        seen.add(node)
        open_ += [following for following, _ in node.next_functions]
    return False


@contextmanager
def no_recomputation(model: nn.Module | None) -> Iterator[None]:
    """A backward in which no module of `model` may be called: gradient checkpointing would compute it as it is now.

    Lanes share the places where their gradients are added up, which autograd orders and warns of: not shown.

    Raises (in the block): RuntimeError if a module is called.
    """
    modules = set() if model is None else set(model.modules())

    def check(module: nn.Module, _: Any) -> None:
        if module in modules and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "gradient checkpointing computes a module anew in the backward, and with parallel=True the attack is "
                "over by then: take parallel=False, or no checkpointing"
            )

    hook = register_module_forward_pre_hook(check)
    try:
        with catch_warnings():
            filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
            yield
    finally:
        hook.remove()
