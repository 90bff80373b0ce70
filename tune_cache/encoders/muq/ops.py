"""Matrix products and settings of torch that the forward pass needs to be exact and fast.

Conventions
-----------
Weights are converted and laid out once, when a layer is made; inputs are
(…, dim). Global settings are changed inside :func:`exact_math` only, and put
back. There are no ``torch.nn`` modules: nothing here has a training mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from tune_cache.devices import set_precision

if TYPE_CHECKING:
    import torch

__all__ = ["LayerNorm", "Linear", "exact_math", "has_onednn"]


PLANS = 64


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

    By default PyTorch lets cuDNN round float32 convolutions to TF32, cuBLAS sum
    16-bit products in 16 bits, and a caller's ``set_float32_matmul_precision("medium")``
    rounds float32 products to bfloat16, on the CPU too. What the caller has set
    is put back, but for one thing: cuDNN's switch has a first state that cannot
    be set again, so only a run on a GPU touches it.
    """
    import torch

    backends: Any = torch.backends  # its stubs lack the per-operator switches
    with ExitStack() as stack:
        if device.type == "cuda":
            precision = "tf32" if tf32 else "ieee"
            set_precision(stack, backends.cuda.matmul, precision)
            set_precision(stack, backends.cudnn.conv, precision)
            for name, value in (("benchmark", False), ("deterministic", True)):
                _set(stack, backends.cudnn, name, value)
            _forbid_sums_in_16_bits(stack)
            _keep_few_plans(stack, device)
            stack.enter_context(_fused_attention())
        else:
            set_precision(stack, backends.mkldnn.matmul, "ieee")
            set_precision(stack, backends.mkldnn.conv, "ieee")
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(torch.inference_mode())
        yield


def _set(stack: ExitStack, owner: Any, name: str, value: object) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _forbid_sums_in_16_bits(stack: ExitStack) -> None:
    """Have cuBLAS keep partial sums of 16-bit products in float32."""
    import torch

    matmul: Any = torch.backends.cuda.matmul
    _set(stack, matmul, "allow_fp16_accumulation", False)
    for kind in ("fp16", "bf16"):
        name = f"allow_{kind}_reduced_precision_reduction"
        before = (getattr(matmul, name), getattr(matmul, name + "_split_k", True))
        stack.callback(setattr, matmul, name, before)
        setattr(matmul, name, (False, True))


def _keep_few_plans(stack: ExitStack, device: torch.device) -> None:
    """Bound cuFFT's plans, of which each length makes one with a workspace of its own."""
    import torch

    cuda: Any = torch.cuda  # half of it has no types
    if cuda.is_initialized():
        index = cuda.current_device() if device.index is None else device.index
        _set(stack, torch.backends.cuda.cufft_plan_cache[index], "max_size", PLANS)


def _fused_attention() -> AbstractContextManager[None]:
    """Attention whose memory is linear in the frames, without cuDNN's.

    PyTorch prefers cuDNN's on Hopper and Blackwell; it builds a plan for every
    new length, which took 20 to 440 ms each where that was reported.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    context: AbstractContextManager[None] = sdpa_kernel(
        [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )
    return context
