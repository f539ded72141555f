"""The Hessian of a batch's loss over all weights by Hessian-vector products: its largest eigenvalue and its trace."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dropattack.batch import Batch
from dropattack.probes.scratch import Scratch


@contextmanager
def double_backward(model: nn.Module) -> Iterator[None]:
    """Use kernels that support double backward: native RNNs instead of cuDNN's, and math attention instead of fused.

    oneDNN's LSTM on a CPU supports it too, but torch's native one takes half the time.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")  # not requested
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.LSTM) for module in model.modules()):
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        yield


class Hessian:
    """∂²L/∂θ² of one batch's mean loss at the weights of a scratch copy; never materialised.

    All use must be inside `double_backward(model)`. For ReLU networks this is the Hessian where it exists, which is
    almost everywhere.

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
        """Return H v; both are [n], in the order of `scratch.parameters`."""
        if self._gradient is None:  # keep the graph, so that each product costs one backward
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
        """Return the largest (most positive) eigenvalue, by ARPACK's restarted Lanczos iteration in float32.

        Returns:
            The eigenvalue, or NaN if it did not converge to the relative `tolerance`.
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
        """Return an unbiased estimate of the trace: the mean of vᵀHv over random signs v (Hutchinson 1990)."""
        generator = torch.Generator().manual_seed(seed)
        values = []
        for _ in range(probes):
            signs = (torch.randint(2, (self.size,), generator=generator) * 2 - 1).float().to(self._device)
            values.append(float(signs.double() @ self.product(signs).double()))
        self.release()
        return sum(values) / len(values)
