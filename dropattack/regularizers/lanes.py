"""Passes side by side: forwards that move one target each, in copies, so that a GPU can run them at the same time.

A pass that moves a weight in place has to end before another may begin. Here the moved value is a copy, which takes the
weight's place in its modules while a forward of its own is launched, on a stream of its own. One backward then serves
all of these forwards: autograd runs each one's part on the stream of its forward, and adds up what they share.
"""

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from warnings import catch_warnings, filterwarnings

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

_STREAMS: dict[tuple[int, int], Any] = {}  # by device and number, for good: cuBLAS keeps a workspace for each it saw


class Lanes:
    """Streams beside the current one, which waits for them on `join` and at the end. Where there is no GPU: nothing.

    Inside the block everything that the current stream had been given before is done first, in every lane; so memory
    that the lanes and the current stream hand each other is never written too early.
    """

    def __init__(self, model: nn.Module | None, count: int) -> None:
        devices = {p.device for p in model.parameters()} if model is not None else set()
        device = devices.pop() if len(devices) == 1 else torch.device("cpu")  # a model on two GPUs orders them itself
        self._device = device if device.type == "cuda" else None
        self._count = count

    def __enter__(self) -> "Lanes":
        if self._device is not None:
            self._current = torch.cuda.current_stream(self._device)
            self._streams = [self._stream(n) for n in range(self._count)]
            for stream in self._streams:
                stream.wait_stream(self._current)
        return self

    def __iter__(self) -> Iterator[AbstractContextManager]:
        for n in range(self._count):
            yield nullcontext() if self._device is None else torch.cuda.stream(self._streams[n])

    def join(self) -> None:
        if self._device is not None:
            for stream in self._streams:
                self._current.wait_stream(stream)

    def __exit__(self, *_: object) -> None:
        self.join()

    def _stream(self, n: int) -> Any:
        assert self._device is not None
        key = (self._device.index or 0, n)
        if key not in _STREAMS:
            _STREAMS[key] = torch.cuda.Stream(self._device)
        return _STREAMS[key]


@contextmanager
def replaced(model: nn.Module | None, parameter: nn.Parameter, by: Tensor) -> Iterator[None]:
    """`by` stands in the place of `parameter` wherever a module of `model` holds it; the parameter is not touched."""
    modules = () if model is None else model.modules()
    places = [(m, name) for m in modules for name, p in m._parameters.items() if p is parameter]
    with ExitStack() as stack:
        if any(isinstance(module, nn.RNNBase) for module, _ in places):
            # cuDNN copies weights that are not views of one buffer, and would advise to make them so.
            stack.enter_context(catch_warnings())
            filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        for module, name in places:
            stack.callback(_put, module, name, parameter)
            _put(module, name, by)
        yield


def _put(module: nn.Module, name: str, tensor: Any) -> None:
    module._parameters[name] = tensor
    if isinstance(module, nn.RNNBase) and name in module._flat_weights_names:
        # The list that a RNN computes with. It would notice the change and move all weights into a new buffer, unless
        # what it remembers of the list changes too.
        n = module._flat_weights_names.index(name)
        module._flat_weights[n] = tensor
        module._flat_weight_refs[n] = weakref.ref(tensor)


@contextmanager
def no_recomputation(model: nn.Module | None) -> Iterator[None]:
    """A backward in which no module of `model` may be called: gradient checkpointing would compute it as it is now.

    Raises (in the block): RuntimeError if one is.
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
        yield
    finally:
        hook.remove()
