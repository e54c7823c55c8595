"""The functions of fla-core 0.6.0 that the project calls: their parameters, what they refuse, and plain recurrences.

As the real ones they give (outputs, final state), outputs in the type of the queries, and gradients without a graph.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch

HALF = (torch.float16, torch.bfloat16)


class Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx, recurrence, *tensors):
        ctx.recurrence = recurrence
        ctx.save_for_backward(*tensors)
        return recurrence(*(tensor.double() for tensor in tensors)).to(tensors[0].dtype)

    @staticmethod
    def backward(ctx, gradient):
        leaves = [tensor.detach().double().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            y = ctx.recurrence(*leaves)
        gradients = torch.autograd.grad(y, leaves, gradient.double())
        pairs = zip(gradients, ctx.saved_tensors, strict=True)
        return (None, *(found.detach().to(tensor.dtype) for found, tensor in pairs))


def state_by_state(q, k, v, scale, g=None, beta=None, writes=1):
    state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    outputs = []
    for t in range(q.shape[1]):
        if g is not None:
            decay = g[:, t].exp()
            state = state * (decay[..., None] if decay.ndim == 3 else decay[..., None, None])
        for s in range(writes * t, writes * (t + 1)):
            value = v[:, s]
            if beta is not None:
                value = beta[:, s, :, None] * (value - torch.einsum("bhkv,bhk->bhv", state, k[:, s]))
            state = state + torch.einsum("bhk,bhv->bhkv", k[:, s], value)
        outputs.append(scale * torch.einsum("bhkv,bhk->bhv", state, q[:, t]))
    return torch.stack(outputs, 1)


def pair_by_pair(q, k, v, scale, g, level_scales):
    q, k = (t.repeat_interleave(v.shape[2] // t.shape[2], 2) for t in (q, k))
    outputs = []
    for t in range(q.shape[1]):
        weights = [
            g[:, s + 1 : t + 1].sum(1).exp() * level_scales[:, t, :, (s ^ t).bit_length()] * (q[:, t] * k[:, s]).sum(-1)
            for s in range(t + 1)
        ]
        outputs.append(scale * torch.einsum("sbh,bshv->bhv", torch.stack(weights), v[:, : t + 1]))
    return torch.stack(outputs, 1)


def check(q, k, v, *, types, writes=1, groups=False, **others):
    """Raise `TypeError` unless types are allowed and shapes fit; `others`: by name a tensor and its shape."""
    batch, tokens, heads = q.shape[0], q.shape[1], v.shape[2]
    if not q.dtype == k.dtype == v.dtype or q.dtype not in types:
        raise TypeError(f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}")
    if k.shape != (batch, tokens * writes, *q.shape[2:]) or v.shape[:2] != k.shape[:2]:
        raise TypeError(f"q, k, v have the shapes {q.shape}, {k.shape}, {v.shape}")
    if heads % q.shape[2] if groups else heads != q.shape[2]:
        raise TypeError(f"{q.shape[2]} heads of q for {heads} of v")
    for name, (tensor, shape, dtype) in others.items():
        if tensor.shape != shape or tensor.dtype != dtype:
            raise TypeError(f"{name} is {tensor.dtype} of shape {tensor.shape}, not {dtype} of {shape}")


def fixed(scale, **defaults):
    """Raise `TypeError` for what the project leaves alone; the scale, whose default depends on the keys, is given."""
    if scale is None or any(value for value in defaults.values()):
        raise TypeError(f"scale={scale}, {defaults}")


def chunk_simple_gla(
    q, k, v, g=None, g_gamma=None, scale=None, initial_state=None, output_final_state=False, state_v_first=False,
    cu_seqlens=None, cu_seqlens_cpu=None,
):  # fmt: skip
    fixed(scale, g_gamma=g_gamma, initial_state=initial_state, final=output_final_state, cu_seqlens=cu_seqlens)
    check(q, k, v, types=(*HALF, torch.float32), g=(g, v.shape[:3], torch.float32))
    return Opaque.apply(lambda q, k, v, g: state_by_state(q, k, v, scale, g), q, k, v, g), None


def chunk_gla(
    q, k, v, g, scale=None, initial_state=None, output_final_state=False, state_v_first=False, cu_seqlens=None,
    cu_seqlens_cpu=None,
):  # fmt: skip
    fixed(scale, initial_state=initial_state, final=output_final_state, cu_seqlens=cu_seqlens)
    check(q, k, v, types=(*HALF, torch.float32), g=(g, k.shape, torch.float32))
    return Opaque.apply(lambda q, k, v, g: state_by_state(q, k, v, scale, g), q, k, v, g), None


def chunk_delta_rule(
    q, k, v, beta, scale=None, initial_state=None, output_final_state=False, use_qk_l2norm_in_kernel=False,
    cu_seqlens=None, cu_seqlens_cpu=None,
):  # fmt: skip
    fixed(scale, initial_state=initial_state, final=output_final_state, norm=use_qk_l2norm_in_kernel)
    check(q, k, v, types=HALF, beta=(beta, k.shape[:3], torch.float32))
    return Opaque.apply(lambda q, k, v, beta: state_by_state(q, k, v, scale, None, beta), q, k, v, beta), None


def gated(q, k, v, g, beta, scale):
    def recurrence(q, k, v, g, beta):
        return state_by_state(q, k, v, scale, g, beta)

    return Opaque.apply(recurrence, q, k, v, g, beta), None


def chunk_gated_delta_rule(
    q, k, v, g, beta, scale=None, initial_state=None, output_final_state=False, use_qk_l2norm_in_kernel=False,
    use_beta_sigmoid_in_kernel=False, allow_neg_eigval=False, state_v_first=False, cu_seqlens=None,
    cu_seqlens_cpu=None, chunk_indices=None, cp_context=None,
):  # fmt: skip
    fixed(scale, initial_state=initial_state, norm=use_qk_l2norm_in_kernel, sigmoid=use_beta_sigmoid_in_kernel)
    shape = k.shape[:3]
    check(q, k, v, types=(*HALF, torch.float32), g=(g, shape, torch.float32), beta=(beta, shape, torch.float32))
    return gated(q, k, v, g, beta, scale)


def chunk_kda(
    q, k, v, g, beta, scale=None, initial_state=None, output_final_state=False, use_qk_l2norm_in_kernel=False,
    use_gate_in_kernel=False, use_beta_sigmoid_in_kernel=False, allow_neg_eigval=False, safe_gate=False,
    lower_bound=None, disable_recompute=False, return_intermediate_states=False, state_v_first=False, cu_seqlens=None,
    cu_seqlens_cpu=None, cp_context=None, use_graph=False, max_num_seqs=None,
):  # fmt: skip
    fixed(scale, initial_state=initial_state, gate=use_gate_in_kernel, sigmoid=use_beta_sigmoid_in_kernel)
    types = (*HALF, torch.float32)
    check(q, k, v, types=types, g=(g, k.shape, torch.float32), beta=(beta, k.shape[:3], torch.float32))
    return gated(q, k, v, g, beta, scale)


def chunk_gated_delta_product(
    q, k, v, g, beta, num_householder, scale=None, initial_state=None, output_final_state=False,
    use_qk_l2norm_in_kernel=False, cu_seqlens=None, cu_seqlens_cpu=None, cp_context=None,
):  # fmt: skip
    fixed(scale, initial_state=initial_state, norm=use_qk_l2norm_in_kernel)
    check(q, k, v, types=HALF, writes=num_householder, beta=(beta, k.shape[:3], torch.float32))
    if g is None:

        def undecayed(q, k, v, beta):
            return state_by_state(q, k, v, scale, None, beta, num_householder)

        return Opaque.apply(undecayed, q, k, v, beta), None
    check(q, k, v, types=HALF, writes=num_householder, g=(g, q.shape[:3], torch.float32))

    def recurrence(q, k, v, g, beta):
        return state_by_state(q, k, v, scale, g, beta, num_householder)

    return Opaque.apply(recurrence, q, k, v, g, beta), None


def chunk_log_linear_attn(
    q, k, v, g, level_scales, initial_state=None, output_final_state=False, cu_seqlens=None, scale=1.0
):
    fixed(scale, initial_state=initial_state, final=output_final_state, cu_seqlens=cu_seqlens)
    levels = (level_scales, (*v.shape[:3], level_scales.shape[3]), q.dtype)
    check(q, k, v, types=(*HALF, torch.float32), groups=True, g=(g, v.shape[:3], torch.float32), level_scales=levels)

    def recurrence(q, k, v, g, level_scales):
        return pair_by_pair(q, k, v, scale, g, level_scales)

    return Opaque.apply(recurrence, q, k, v, g, level_scales), None


FUNCTIONS = {
    "simple_gla": chunk_simple_gla,
    "gla": chunk_gla,
    "delta_rule": chunk_delta_rule,
    "gated_delta_rule": chunk_gated_delta_rule,
    "kda": chunk_kda,
    "gated_delta_product": chunk_gated_delta_product,
    "log_linear_attn": chunk_log_linear_attn,
}
"""By their modules in `fla.ops`."""


def install(monkeypatch, **instead):
    """Put the package in the place of the real one; `instead`: other functions, by module."""
    for name in ("fla", "fla.ops"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    for name, function in FUNCTIONS.items():
        module = ModuleType(f"fla.ops.{name}")
        setattr(module, function.__name__, instead.get(name, function))
        monkeypatch.setitem(sys.modules, module.__name__, module)
