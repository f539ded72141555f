"""The Hessian of a batch's loss over all weights, by products with vectors: its largest eigenvalue and its trace."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dropattack.data.loader import Batch
from dropattack.probes.scratch import Scratch


@contextmanager
def double_backward(model: nn.Module) -> Iterator[None]:
    """Kernels that can be differentiated twice: torch's own RNNs for cuDNN's, plain attention for the fused ones.

    oneDNN's LSTM on a CPU can be, but torch's own takes half the time there.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")  # it was not asked for
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.LSTM) for module in model.modules()):
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        yield


class Hessian:
    """∂²L/∂θ² of the mean loss of one batch at a scratch copy's weights, never written out.

    Enter `double_backward(model)` around all use. ReLU networks are taken where they are smooth: almost everywhere.

    Attributes:
        size: number of weights n.
    """

    def __init__(self, scratch: Scratch, batch: Batch) -> None:
        self._scratch, self._batch = scratch, batch
        self._weights = list(scratch.parameters.values())
        self.size = sum(p.numel() for p in self._weights)
        self._device = self._weights[0].device
        self._gradient: Tensor | None = None

    def product(self, vector: Tensor) -> Tensor:
        """H v, both [n] in the order of `scratch.parameters`."""
        if self._gradient is None:  # its graph is kept: a product costs one backward
            grads = torch.autograd.grad(
                self._scratch.loss(self._batch), self._weights, create_graph=True, materialize_grads=True
            )
            self._gradient = torch.cat([g.reshape(-1) for g in grads])
        if not self._gradient.requires_grad:  # the loss is linear in every weight
            return torch.zeros_like(vector)
        parts = torch.autograd.grad(
            self._gradient, self._weights, grad_outputs=vector, retain_graph=True, materialize_grads=True
        )
        return torch.cat([part.reshape(-1) for part in parts]).detach()

    def release(self) -> None:
        """Free the graph."""
        self._gradient = None

    def largest_eigenvalue(self, *, seed: int = 0, tolerance: float = 1e-3, restarts: int = 30) -> float:
        """The largest (most positive) eigenvalue, by ARPACK's restarted Lanczos iteration in float32.

        Returns:
            NaN where it did not converge to the relative `tolerance`.
        """

        def matvec(v: np.ndarray) -> np.ndarray:
            vector = torch.from_numpy(np.ascontiguousarray(v.reshape(-1), dtype=np.float32)).to(self._device)
            return self.product(vector).cpu().numpy()

        if self.size < 3:  # too small for Lanczos
            return float(np.linalg.eigvalsh(np.stack([matvec(row) for row in np.eye(self.size)])).max())
        operator = LinearOperator((self.size, self.size), matvec=matvec, dtype=np.float32)
        start = np.random.default_rng(seed).standard_normal(self.size).astype(np.float32)
        try:
            found = eigsh(
                operator, k=1, which="LA", v0=start, tol=tolerance, ncv=min(self.size, 10), maxiter=restarts,
                return_eigenvectors=False,
            )  # fmt: skip
        except ArpackNoConvergence:
            return float("nan")
        finally:
            self.release()
        return float(found[0])

    def trace(self, *, probes: int = 10, seed: int = 0) -> float:
        """An unbiased estimate of the trace: the mean of vᵀHv over random signs v (Hutchinson 1990)."""
        generator = torch.Generator().manual_seed(seed)
        values = []
        for _ in range(probes):
            signs = (torch.randint(2, (self.size,), generator=generator) * 2 - 1).float().to(self._device)
            values.append(float(signs.double() @ self.product(signs).double()))
        self.release()
        return sum(values) / len(values)
