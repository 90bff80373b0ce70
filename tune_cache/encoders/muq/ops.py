"""Matrix products and settings of torch that the forward pass needs to be exact and fast.

Conventions
-----------
Weights are converted and laid out once, when a layer is made; inputs are
(…, dim). Global settings are changed inside :func:`exact_math` only, and put
back. There are no ``torch.nn`` modules: nothing here has a training mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["LayerNorm", "Linear", "exact_math", "has_onednn"]


def has_onednn() -> bool:
    """Whether this build of torch has oneDNN's matrix product with its own weight layout.

    The operator is the one that ``torch.compile`` emits for frozen CPU graphs.
    It was 2.3 times as fast in float32 as MKL's, which torch calls otherwise,
    on an AMD processor (Zen 5, two threads).
    """
    import torch

    return bool(torch.backends.mkldnn.enabled) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear:
    """``activation(x · weightᵀ + bias)``.

    Parameters
    ----------
    weight : of shape (n_out, n_in), float32
    bias : of shape (n_out,), or None
    dtype
        Of the product; an input of another one is converted.
    activation
        ``"none"`` or ``"swish"``, in the same pass where the library can.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
        activation: str = "none",
    ) -> None:
        import torch

        self.activation = activation
        self.dtype = dtype
        self.bias = None if bias is None else bias.to(device, dtype)
        self.weight = weight.to(device, dtype).contiguous()
        self.packed = device.type == "cpu" and dtype != torch.float16 and has_onednn()
        if self.packed:
            # 256 rows: the batch that the blocked layout is chosen for, any other works
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, 256)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        x = x.to(self.dtype)
        if self.packed:
            result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self.weight, self.bias, self.activation, [], ""
            )
            return result
        result = torch.nn.functional.linear(x, self.weight, self.bias)
        return (
            torch.nn.functional.silu(result, inplace=True) if self.activation != "none" else result
        )


class LayerNorm:
    """Normalise the last axis, in float32."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, *, device: torch.device, epsilon: float
    ) -> None:
        self.weight = weight.to(device)
        self.bias = bias.to(device)
        self.epsilon = epsilon

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.nn.functional.layer_norm(
            x, self.weight.shape, self.weight, self.bias, self.epsilon
        )


@contextmanager
def exact_math(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Compute as written: no autocast, no autograd, TF32 only if asked for.

    By default PyTorch lets cuDNN round float32 convolutions to TF32, and a
    caller's ``set_float32_matmul_precision("medium")`` rounds float32 products
    to bfloat16, on the CPU too. Whatever the caller has set is put back.
    """
    import torch

    backends: Any = torch.backends  # its stubs lack the per-operator switches
    wanted: list[tuple[Any, str]] = [
        (backends.cuda.matmul, "tf32" if tf32 else "ieee"),
        (backends.cudnn.conv, "tf32" if tf32 else "ieee"),
        (backends.mkldnn.matmul, "ieee"),
        (backends.mkldnn.conv, "ieee"),
    ]
    with ExitStack() as stack:
        for switch, precision in wanted:
            stack.callback(setattr, switch, "fp32_precision", switch.fp32_precision)
            switch.fp32_precision = precision
        for name, value in (("benchmark", False), ("deterministic", True)):
            stack.callback(setattr, backends.cudnn, name, getattr(backends.cudnn, name))
            setattr(backends.cudnn, name, value)
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(torch.inference_mode())
        yield
