"""One-operator networks as expressions of ``x``, with every argument away from its default.

``x`` is float32 of the case's shape; ``t(2, 3)`` is a constant float32 tensor of that shape, ``i(...)`` one of integers
as written, ``b(2, 3)`` one of truth values. An expression may give integers or truth values: they are cast at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

IMAGE = (2, 4, 9, 11)


@dataclass(frozen=True)
class Case:
    """``expression`` of an ``x`` of ``shape``; ``special`` are the values that are tried beside numbers: none where the
    order of summation decides PyTorch's answer.
    """

    expression: str
    shape: tuple[int, ...] = IMAGE
    special: tuple[float, ...] = (np.nan, np.inf, -np.inf)

    def module(self) -> nn.Module:
        return Expression(self.expression).eval()

    def data(self) -> np.ndarray:
        data = np.random.default_rng(3).standard_normal(self.shape).astype(np.float32) * 3
        flat = data.reshape(-1)
        flat[: min(6, flat.size)] = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5][: flat.size]
        return data

    def spoilt(self) -> np.ndarray:
        """``data`` with some of the special values."""
        data = self.data()
        flat = data.reshape(-1)
        for step, value in zip((29, 31, 37), self.special, strict=False):
            flat[step // 3 :: step] = value
        return data


@dataclass
class Constants:
    """Tensors by what was asked for, each made once: torch.export takes them as constants."""

    made: dict = field(default_factory=dict)

    def _once(self, key, make):
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def t(self, *shape: int) -> torch.Tensor:
        generator = np.random.default_rng(sum(shape) + len(shape))
        return self._once(("t", shape), lambda: torch.from_numpy(generator.standard_normal(shape).astype(np.float32)))

    def b(self, *shape: int) -> torch.Tensor:
        generator = np.random.default_rng(sum(shape) + 1)
        return self._once(("b", shape), lambda: torch.from_numpy(generator.random(shape) > 0.5))

    def i(self, values) -> torch.Tensor:
        return self._once(("i", repr(values)), lambda: torch.tensor(values))


class Expression(nn.Module):
    def __init__(self, expression: str):
        super().__init__()
        self.constants = Constants()
        self.code = compile(expression, "<case>", "eval")

    def forward(self, x):
        constants = self.constants
        names = {
            "x": x,
            "torch": torch,
            "F": F,
            "t": constants.t,
            "b": constants.b,
            "i": constants.i,
            "inf": float("inf"),
        }
        result = eval(self.code, names)
        return result.float() if result.dtype != torch.float32 else result


def cases(text: str, shape=IMAGE, **options) -> list[Case]:
    """One case a line; ``expression @ 2,3,4`` has a shape of its own."""
    found = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        expression, _, own = line.partition(" @ ")
        found.append(Case(expression, tuple(map(int, own.split(","))) if own else shape, **options))
    return found


ACTIVATIONS = cases("""
    F.relu(x)
    F.relu6(x)
    F.hardtanh(x)
    F.hardtanh(x, -0.5, 2.0)
    F.hardswish(x)
    F.hardsigmoid(x)
    F.leaky_relu(x)
    F.leaky_relu(x, 0.3)
    F.leaky_relu(x, -0.5)
    F.leaky_relu(x, 2.0)
    F.elu(x)
    F.elu(x, 0.3)
    F.celu(x)
    F.celu(x, 0.4)
    F.celu(x, 2.5)
    F.selu(x)
    torch.ops.aten.elu(x, 1.5, 1.2, 0.7)
    F.gelu(x)
    F.gelu(x, approximate='tanh')
    F.silu(x)
    F.mish(x)
    F.softplus(x)
    F.softplus(x, 2.0)
    F.softplus(x, 0.5, 1.0)
    F.softplus(x, 3.0, 2.0)
    F.softsign(x)
    F.softshrink(x)
    F.softshrink(x, 1.2)
    F.hardshrink(x)
    F.hardshrink(x, 1.5)
    F.tanhshrink(x)
    F.threshold(x, 0.5, -7.0)
    F.logsigmoid(x)
    F.prelu(x, t(4))
    F.prelu(x, t(1))
    F.prelu(x, t(5)) @ 3,5
    F.prelu(x, t(1)) @ 7
    F.rrelu(x, 0.1, 0.4)
    F.glu(x)  @ 2,4,9,12
    F.glu(x, 1)
    F.glu(x, -3)
    F.softmax(x, 1)
    F.softmax(x, -1)
    F.softmax(x, -3)
    F.softmax(x, 0)
    F.softmin(x, 1)
    F.log_softmax(x, 1)
    F.log_softmax(x, -2)
    F.softmax(x, 1, dtype=torch.float64)
    F.normalize(x)
    F.normalize(x, p=1.0, dim=-1)
    F.dropout(x, 0.5, False)
    F.alpha_dropout(x, 0.5, False)
    F.threshold(x, 0.0, 0.0)
    torch.sigmoid(x)
    torch.tanh(x)
""")

ELEMENTWISE = cases("""
    torch.clamp(x, -1.0, 2.0)
    torch.clamp(x, min=0.5)
    torch.clamp(x, max=0.5)
    torch.clamp(x, 2.0, -1.0)
    torch.clamp(x, min=t(11))
    torch.clamp(x, max=t(4, 1, 1))
    torch.clamp(x, t(9, 1), t(11))
    torch.clamp_min(x, 0.2)
    torch.clamp_max(x, 0.2)
    torch.clip(x, -inf, 1.0)
    (x * 3).long().clamp(-2, 3)
    (x * 3).long().clamp(-2.5, 3)
    (x * 3).int().clamp(min=1)
    torch.clamp(x, t(2, 1, 1, 1), None)
    torch.maximum(x, t(11))
    torch.minimum(t(11), x)
    torch.fmax(x, t(11))
    torch.fmin(x, t(11))
    torch.max(x, x.flip(0))
    torch.min(x, x.flip(0))
    torch.add(x, t(11), alpha=0.7)
    torch.add(x, 2, alpha=3)
    torch.sub(x, t(11), alpha=2)
    torch.sub(x, 1.5, alpha=-3)
    torch.rsub(x, t(11), alpha=0.25)
    torch.rsub(x, 2, alpha=3)
    2 - x
    3 / x
    x.long() + 1.5
    x.long() * 0.5
    x.long() / 2
    2 - x.long() * 1.5
    1.5 - x.long()
    x.long() - 0.5
    x.int() + x.long()
    x.long() + x
    (x > 0) + x
    (x > 0) * x
    (x > 0) + (x > 1)
    (x > 0) * 2.5
    (x > 0) * 3
    (x > 0) / 2
    (x > 0) & (x < 1)
    (x > 0) | (x < -1)
    (x > 0) ^ (x < 1)
    ~(x > 0)
    ~x.long()
    x.long() & 5
    x.long() | 5
    x.long() ^ i([3])
    x.long() << 2
    x.long() >> 1
    torch.div(x, 0.7)
    torch.div(x, t(11), rounding_mode='floor')
    torch.div(x, t(11), rounding_mode='trunc')
    torch.div(x, 0.7, rounding_mode='floor')
    torch.div(x, -0.7, rounding_mode='trunc')
    torch.div((x * 5).long(), 3, rounding_mode='floor')
    torch.div((x * 5).long(), -3, rounding_mode='trunc')
    torch.div((x * 5).long(), i([3, -2, 7, 1, -5, 2, 3, 4, 5, 6, -7]), rounding_mode='trunc')
    torch.div((x * 5).long(), i([3, -2, 7, 1, -5, 2, 3, 4, 5, 6, -7]), rounding_mode='floor')
    torch.div((x * 5).long(), 2.5, rounding_mode='floor')
    (x * 5).long() / i([3, -2, 7, 1, -5, 2, 3, 4, 5, 6, -7])
    (x * 5).long() / 4
    x // 0.7
    x // t(11)
    (x * 5).long() // 3
    (x * 5).long() // -3
    x % 0.7
    x % -0.7
    x % t(11)
    (x * 5).long() % 3
    (x * 5).long() % -3
    (x * 5).long() % i([3, -2, 7, 1, -5, 2, 3, 4, 5, 6, -7])
    torch.remainder(x, 1.3)
    torch.remainder(2.5, x)
    torch.fmod(x, 1.3)
    torch.fmod(x, -1.3)
    torch.fmod(x, t(11))
    torch.fmod((x * 5).long(), 3)
    torch.fmod((x * 5).long(), -3)
    torch.pow(x, 2)
    torch.pow(x, 3)
    torch.pow(x, 3.0)
    torch.pow(x, -1)
    torch.pow(x, 0)
    torch.pow(x, 1)
    torch.pow(x, 5)
    torch.pow(x, 0.5)
    x.abs() ** 0.5
    x.abs() ** -0.5
    x.abs() ** 1.7
    torch.pow(2.0, x)
    torch.pow(-2, x.long())
    x.abs() ** t(11)
    x ** x.long().clamp(-3, 3)
    x.long() ** 2
    x.long() ** 0
    x.long() ** 3.0
    x.int() ** 2
    torch.square(x)
    torch.sqrt(x)
    torch.rsqrt(x)
    torch.sqrt(x.long().abs())
    torch.rsqrt(x.long().abs() + 1)
    torch.reciprocal(x)
    torch.reciprocal(x.long() * 2 + 1)
    torch.exp(x)
    torch.exp(x.long())
    torch.exp2(x)
    torch.expm1(x)
    torch.expm1(x * 1e-4)
    torch.log(x)
    torch.log2(x)
    torch.log10(x)
    torch.log1p(x)
    torch.log1p(x * 1e-4)
    torch.log(x.long().abs() + 1)
    torch.log2(x.long().abs() + 1)
    torch.log1p(x.long().abs())
    torch.sin(x)
    torch.cos(x)
    torch.tan(x)
    torch.sin(x.long())
    torch.asin(x / 20)
    torch.acos(x / 20)
    torch.atan(x)
    torch.atan2(x, t(11))
    torch.atan2(x, x.flip(0))
    torch.sinh(x)
    torch.cosh(x)
    torch.asinh(x)
    torch.asinh(x * 1000)
    torch.acosh(x.abs() + 1)
    torch.atanh(x / 20)
    torch.tanh(x.long())
    torch.sigmoid(x.long())
    torch.erf(x)
    torch.erfc(x)
    torch.lgamma(x)
    torch.abs(x)
    torch.abs(x.long())
    torch.neg(x)
    torch.sign(x)
    torch.sign(x.long())
    torch.sgn(x)
    torch.floor(x)
    torch.ceil(x)
    torch.round(x)
    torch.round(x * 2) / 2
    torch.round(x, decimals=2)
    torch.round(x, decimals=-1)
    torch.trunc(x)
    torch.frac(x)
    torch.floor(x.long())
    torch.round(x.long())
    torch.trunc(x.long())
    torch.ceil(x.long())
    torch.isnan(x)
    torch.isinf(x)
    torch.isfinite(x)
    torch.nan_to_num(x)
    torch.nan_to_num(x, 1.0, 2.0, 3.0)
    torch.isnan(x.long())
    (x != x) | (x == x)
    (x < 1) | (x >= 1)
    (x == 1) | (x != 1)
    ~(x < t(11))
    ~(x == 1)
    ~((x < 1) | (x > 2))
    torch.where(~(x < 1), 1.0, 2.0)
    (x != x)
    (x == x)
    (x <= x)
    (x < x)
    x * 0
    x * 0 + 1
    0 * x
    x / 0
    0 / x
    x - x
    x / x
    x + (-x)
    torch.sigmoid(x) - torch.sigmoid(x)
    x ** 0
    torch.logical_and(x, t(11))
    torch.logical_or(x.long(), x.long())
    torch.logical_xor(x, t(11) > 0)
    torch.logical_not(x)
    torch.logical_not(x.long())
    torch.eq(x, 1.0)
    torch.ne(x, 1.0)
    torch.lt(x, t(11))
    torch.le(x, 0.5)
    torch.gt(x, t(11))
    torch.ge(x, 0)
    x.long() > 0.5
    x.long() == 0.5
    x.long() < x
    torch.eq(x.long(), x)
    (x > 0) == (x > 1)
    (x > 0) != (t(11) > 0)
    (x > 0) < (x > -1)
    torch.where(x > 0, x, t(11))
    torch.where(x > 0, x, 2.0)
    torch.where(t(11) > 0, x, -x)
    torch.where(x > 0, x.long(), x)
    torch.where(x.isnan(), 0.0, x)
    torch.where(b(9, 1), t(11), x)
    torch.lerp(x, t(11), 0.3)
    torch.lerp(x, t(11), t(9, 1))
    torch.addcmul(x, t(11), t(9, 1), value=0.6)
    torch.addcdiv(x, t(11), t(9, 1), value=-2)
    torch.hypot(x, t(11))
    torch.copysign(x, t(11))
    torch.logaddexp(x, t(11))
    torch.logaddexp2(x, t(11))
    torch.heaviside(x, t(11))
    torch.xlogy(x, t(11))
    torch.ldexp(x, i([2]))
    torch.masked_fill(x, x > 1, -5.0)
    torch.masked_fill(x, b(9, 11), -inf)
    torch.masked_fill(x.long(), x > 1, 7)
    x.to(torch.int32)
    x.to(torch.uint8)
    x.abs().to(torch.uint8)
    x.to(torch.int8)
    x.to(torch.bool)
    x.to(torch.float64)
    x.to(torch.float16)
    x.double() * 2
    x.half() + 1
    x.long().bool()
    x.bool().float()
    torch.full_like(x, 3.5) * x
    torch.full_like(x, 3, dtype=torch.int64) + x
    torch.ones_like(x) + x
    torch.zeros_like(x) + x
    torch.ones_like(x, dtype=torch.int64) / 2 + x
    torch.zeros_like(x, dtype=torch.bool) | (x > 0)
    torch.empty_like(x).fill_(2.0) * x
    x.new_full((3,), 2.0)[0] * x
    x.new_ones((9, 11), dtype=torch.int64) + x
    x.new_zeros((9, 11)) + x
    torch.ones(9, 11, dtype=torch.int32) / 4 + x
    torch.zeros(11) + x
    torch.full((11,), 4) / 8 + x
    torch.full((11,), True) & (x > 0)
    torch.arange(11) / 4 + x
    torch.arange(2, 13) * x
    torch.arange(0.5, 11) * x
    torch.arange(0, 22, 2) * x
    torch.arange(10, -1, -1) * x
    torch.arange(0, 5.5, 0.5, dtype=torch.float32) + x
    torch.linspace(-1, 1, 11) + x
    torch.linspace(2, 3, 1) * x
    torch.linspace(0, 10, 11, dtype=torch.int64) * x
    torch.eye(11) * x[0, 0, 0]
    torch.eye(9, 11) * x
    torch.tril(x)
    torch.tril(x, -2)
    torch.triu(x, 1)
    torch.triu(x, diagonal=-3)
    torch.hamming_window(11) * x
    torch.hann_window(11) * x
    torch.scalar_tensor(2.5) * x
    torch.tensor(3) * x
    torch.tensor([1, 2, 3])[1] * x
    x.clone() * 2
    x.detach() * 2
    x.contiguous() * 2
    x.type_as(t(3)) * 2
    torch.isin(x.round(), t(3).round())
    torch.isin(x.long(), i([1, 2, -1]))
    torch.bucketize(x, i([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]))
    torch.bucketize(x, i([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]), right=True)
    torch.bucketize(x, i([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]), out_int32=True)
    torch.searchsorted(i([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]), x)
    torch.relu(x) + torch.relu(-x)
    x.clone().add_(1.0) * 2
    x.clone().mul_(t(11))
    x.clone().clamp_(-1, 1)
    x.clone().masked_fill_(x > 0, 3.0)
    x.clone().zero_() + 1
    x.clone().fill_(2.0) * x
    x.clone().copy_(t(11))
    x.clone().copy_(x.long())
    F.relu(x.clone(), inplace=True)
    torch.outer(x[0, 0, 0], t(5))
    torch.cross(x[:, :3], t(2, 3, 9, 11), dim=1)
""")

CONVOLUTIONS = cases("""
    F.conv2d(x, t(6, 4, 3, 3))
    F.conv2d(x, t(6, 4, 3, 3), t(6))
    F.conv2d(x, t(6, 4, 3, 2), t(6), (2, 1), (1, 0))
    F.conv2d(x, t(6, 4, 3, 3), None, 1, (2, 1), (2, 3))
    F.conv2d(x, t(8, 2, 3, 3), t(8), 2, 1, 1, 2)
    F.conv2d(x, t(4, 1, 3, 3), t(4), 1, 1, 2, 4)
    F.conv2d(x, t(8, 1, 5, 3), None, (1, 2), (2, 1), 1, 4)
    F.conv2d(x, t(6, 4, 3, 3), padding='same')
    F.conv2d(x, t(6, 4, 2, 4), padding='same')
    F.conv2d(x, t(6, 4, 2, 2), padding='valid')
    F.conv2d(x[0], t(6, 4, 3, 3))
    F.conv1d(x, t(6, 4, 3), t(6), 2, 1) @ 2,4,13
    F.conv1d(x, t(6, 2, 3), None, 1, 2, 2, 2) @ 2,4,13
    F.conv1d(x, t(6, 4, 4), padding='same') @ 2,4,13
    F.conv1d(x, t(6, 4, 4)) @ 4,13
    F.conv3d(x, t(6, 4, 2, 3, 3), t(6), (1, 2, 1), (0, 1, 1)) @ 1,4,4,7,6
    F.conv3d(x, t(6, 2, 2, 3, 3), None, 1, 1, (1, 2, 1), 2) @ 1,4,4,7,6
    F.conv_transpose2d(x, t(4, 6, 3, 3))
    F.conv_transpose2d(x, t(4, 6, 3, 3), t(6), 2, 1, 1)
    F.conv_transpose2d(x, t(4, 6, 3, 3), t(6), (2, 3), (1, 0), (1, 2))
    F.conv_transpose2d(x, t(4, 3, 3, 3), t(6), 2, 1, 0, 2)
    F.conv_transpose2d(x, t(4, 1, 3, 3), None, 2, 1, 1, 4)
    F.conv_transpose2d(x, t(4, 6, 2, 2), None, 2)
    F.conv_transpose2d(x, t(4, 6, 1, 1), None, 3)
    F.conv_transpose2d(x, t(4, 6, 3, 3), None, 1, 2)
    F.conv_transpose2d(x, t(4, 6, 3, 3), None, 2, 4)
    F.conv_transpose2d(x[0], t(4, 6, 3, 3))
    F.conv_transpose1d(x, t(4, 6, 3), t(6), 2, 1, 1) @ 2,4,13
    F.conv_transpose1d(x, t(4, 3, 3), None, 3, 1, 2, 2) @ 2,4,13
    F.conv_transpose3d(x, t(4, 3, 2, 3, 3), t(3), 2, 1, 1) @ 1,4,3,4,5
    F.linear(x, t(5, 11), t(5))
    F.linear(x, t(5, 11))
    F.linear(x, t(5, 11), t(5)) @ 3,11
    F.linear(x, t(5, 11), t(5)) @ 2,3,11
    F.linear(x, t(5, 11), t(5)) @ 11
    F.bilinear(x, x, t(5, 11, 11), t(5)) @ 3,11
    torch.matmul(x, t(11, 5))
    torch.matmul(x, t(11))
    torch.matmul(t(9), x)
    torch.matmul(t(5, 9), x)
    torch.matmul(x, t(4, 11, 3))
    torch.matmul(x[0, 0, 0], t(11))
    torch.matmul(x.long(), x.long().transpose(2, 3))
    torch.mm(x, t(11, 3)) @ 5,11
    torch.mv(x, t(11)) @ 5,11
    torch.dot(x, t(11)) @ 11
    torch.bmm(x, t(4, 11, 3)) @ 4,5,11
    torch.addmm(t(3), x, t(11, 3)) @ 5,11
    torch.addmm(t(5, 3), x, t(11, 3), beta=0.5, alpha=2.0) @ 5,11
    torch.addmm(t(5, 3), x, t(11, 3), beta=0, alpha=2) @ 5,11
    torch.addmm(t(5, 3), x, t(11, 3), alpha=0) @ 5,11
    torch.baddbmm(t(4, 5, 3), x, t(4, 11, 3), beta=0.5, alpha=2.0) @ 4,5,11
    torch.addbmm(t(5, 3), x, t(4, 11, 3), beta=0.5, alpha=2.0) @ 4,5,11
    torch.addmv(t(5), x, t(11), beta=0.5, alpha=2.0) @ 5,11
    torch.addr(t(11, 3), x, t(3), beta=0.5, alpha=2.0) @ 11
    torch.einsum('nchw,ck->nkhw', x, t(4, 3))
    torch.einsum('nchw,nchv->nwv', x, x)
    torch.einsum('...w,w->...', x, t(11))
    torch.einsum('ii->i', x) @ 7,7
    torch.einsum('ii', x) @ 7,7
    torch.einsum('nii->ni', x) @ 2,7,7
    torch.diagonal(x, 1, 2, 3)
    torch.diagonal(x, -2, -1, 0)
    torch.diagonal(x) @ 7,5
    torch.diag_embed(x) @ 3,5
    torch.trace(x) @ 5,5
    torch.kron(x, t(2, 3)) @ 3,4
    torch.tensordot(x, t(9, 11, 2), 2)
    torch.cdist(x, t(5, 11)) @ 3,11
    F.cosine_similarity(x, t(11), dim=1)
    F.pairwise_distance(x, t(4, 11)) @ 4,11
    F.scaled_dot_product_attention(x, x, x)
    F.scaled_dot_product_attention(x, x, x, scale=0.3)
    F.scaled_dot_product_attention(x, x, x, attn_mask=t(9, 9))
    F.scaled_dot_product_attention(x, x, x, attn_mask=b(9, 9).logical_or(i([True])))
    F.scaled_dot_product_attention(x, x, x) @ 3,5,8
    F.scaled_dot_product_attention(x, x, x) @ 5,8
""")

POOLS = cases("""
    F.max_pool2d(x, 2)
    F.max_pool2d(x, 3, 2, 1)
    F.max_pool2d(x, (3, 2), (1, 2), (1, 0))
    F.max_pool2d(x, 3, 2, 1, 2)
    F.max_pool2d(x, 2, 2, 0, (2, 1), True)
    F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    F.max_pool2d(x, 2, 2, ceil_mode=True)
    F.max_pool2d(x, 2, 3, 1, ceil_mode=True) @ 1,3,10,12
    F.max_pool2d(x, 3, 1, 1)
    F.max_pool2d(x[0], 3, 2, 1)
    F.max_pool2d(-x.abs() - 5, 3, 2, 1)
    F.max_pool2d(x * 0 - inf, 3, 2, 1)
    F.max_pool2d(x.long(), 3, 2, 1)
    F.max_pool2d(x, 3, 2, 1, return_indices=True)[1]
    F.max_pool2d(x, 3, 2, 1, return_indices=True)[0]
    F.max_pool1d(x, 3, 2, 1) @ 2,4,13
    F.max_pool1d(x, 3, 1, 1, 2, True) @ 2,4,13
    F.max_pool1d(x, 4, 3, 2, ceil_mode=True) @ 4,13
    F.max_pool3d(x, 2, 2, 1) @ 1,3,5,6,7
    F.max_pool3d(x, (1, 2, 3), 2, (0, 1, 1), 1, True) @ 1,3,5,6,7
    F.avg_pool2d(x, 2)
    F.avg_pool2d(x, 3, 2, 1)
    F.avg_pool2d(x, (3, 2), (1, 2), (1, 0))
    F.avg_pool2d(x, 3, 2, 1, True)
    F.avg_pool2d(x, 2, 2, 0, True)
    F.avg_pool2d(x, 2, 3, 1, True) @ 1,3,10,12
    F.avg_pool2d(x, 3, 2, 1, False, False)
    F.avg_pool2d(x, 3, 2, 1, True, False)
    F.avg_pool2d(x, 3, 2, 1, True, True)
    F.avg_pool2d(x, 3, 2, 1, divisor_override=5)
    F.avg_pool2d(x, 3, 2, 1, True, False, 4)
    F.avg_pool2d(x, 2, 2, 0, True, divisor_override=-3)
    F.avg_pool2d(x[0], 3, 2, 1)
    F.avg_pool1d(x, 3, 2, 1) @ 2,4,13
    F.avg_pool1d(x, 4, 3, 2, True, False) @ 2,4,13
    F.avg_pool1d(x, 3, 2, 1, True) @ 2,4,14
    F.avg_pool1d(x, 3, 2, 1) @ 4,13
    F.avg_pool3d(x, 2, 2, 1) @ 1,3,5,6,7
    F.avg_pool3d(x, 2, 2, 1, True, False) @ 1,3,5,6,7
    F.avg_pool3d(x, 2, 2, 0, divisor_override=3) @ 1,3,5,6,7
    F.lp_pool2d(x, 2, 3, 2)
    F.adaptive_avg_pool2d(x, 1)
    F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1)
    F.adaptive_avg_pool2d(x, (4, 5))
    F.adaptive_avg_pool2d(x, (None, 3))
    F.adaptive_avg_pool2d(x, (3, 1))
    F.adaptive_avg_pool2d(x, (13, 20))
    F.adaptive_avg_pool2d(x[0], (4, 5))
    F.adaptive_avg_pool2d(x, (3, 3)) @ 1,3,12,9
    F.adaptive_avg_pool1d(x, 5) @ 2,4,13
    F.adaptive_avg_pool1d(x, 1) @ 2,4,13
    F.adaptive_avg_pool1d(x, 5) @ 4,13
    F.adaptive_avg_pool3d(x, (2, 3, 4)) @ 1,3,5,6,7
    F.adaptive_max_pool2d(x, 1)
    F.adaptive_max_pool2d(x, (4, 5))
    F.adaptive_max_pool2d(x, (3, 3)) @ 1,3,12,9
    F.adaptive_max_pool1d(x, 5) @ 2,4,13
    F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)
    F.fractional_max_pool2d(x, 2, (4, 5), _random_samples=t(2, 4, 2).abs() % 1)
    F.unfold(x, 3)
    F.unfold(x, (2, 3), (1, 2), (1, 0), (2, 1))
    F.fold(x, (6, 7), (2, 3)) @ 2,12,25
    F.fold(x, (6, 7), (2, 3), padding=1, stride=2) @ 2,12,16
    F.local_response_norm(x, 3)
    F.local_response_norm(x, 2, 0.5, 0.6, 2.0)
""")

RESIZES = cases(
    """
    F.interpolate(x, size=(13, 13))
    F.interpolate(x, size=(18, 22))
    F.interpolate(x, size=(5, 4))
    F.interpolate(x, size=(1, 1))
    F.interpolate(x, size=(20, 7))
    F.interpolate(x, scale_factor=2)
    F.interpolate(x, scale_factor=(2, 3))
    F.interpolate(x, scale_factor=3.0)
    F.interpolate(x, scale_factor=1.7)
    F.interpolate(x, scale_factor=0.6)
    F.interpolate(x, scale_factor=(0.4, 2.3))
    F.interpolate(x, scale_factor=1.7, recompute_scale_factor=True)
    F.interpolate(x, size=(13, 13), mode='nearest-exact')
    F.interpolate(x, size=(5, 4), mode='nearest-exact')
    F.interpolate(x, scale_factor=2, mode='nearest-exact')
    F.interpolate(x, scale_factor=0.6, mode='nearest-exact')
    F.interpolate(x, size=(13, 13), mode='bilinear')
    F.interpolate(x, size=(5, 4), mode='bilinear')
    F.interpolate(x, size=(1, 1), mode='bilinear')
    F.interpolate(x, size=(13, 6), mode='bilinear', align_corners=True)
    F.interpolate(x, size=(5, 4), mode='bilinear', align_corners=True)
    F.interpolate(x, size=(1, 1), mode='bilinear', align_corners=True)
    F.interpolate(x, size=(7, 9), mode='bilinear', align_corners=True) @ 1,3,1,1
    F.interpolate(x, scale_factor=2, mode='bilinear')
    F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)
    F.interpolate(x, scale_factor=0.4, mode='bilinear')
    F.interpolate(x, scale_factor=1.7, mode='bilinear')
    F.interpolate(x, scale_factor=1.7, mode='bilinear', align_corners=True)
    F.interpolate(x, scale_factor=1.7, mode='bilinear', recompute_scale_factor=True)
    F.interpolate(x, scale_factor=(0.4, 2.3), mode='bilinear')
    F.interpolate(x, size=(7, 5), mode='bilinear', antialias=True)
    F.interpolate(x, size=(20, 22), mode='bilinear', antialias=True)
    F.interpolate(x, scale_factor=0.4, mode='bilinear', antialias=True)
    F.interpolate(x, size=(3, 4), mode='bilinear', antialias=True, align_corners=True)
    F.interpolate(x, size=(13, 13), mode='bicubic')
    F.interpolate(x, size=(5, 4), mode='bicubic')
    F.interpolate(x, size=(13, 6), mode='bicubic', align_corners=True)
    F.interpolate(x, scale_factor=1.7, mode='bicubic')
    F.interpolate(x, scale_factor=2, mode='bicubic')
    F.interpolate(x, size=(7, 5), mode='bicubic', antialias=True)
    F.interpolate(x, size=(20, 22), mode='bicubic', antialias=True)
    F.interpolate(x, size=(4, 5), mode='area')
    F.interpolate(x, scale_factor=2, mode='area')
    F.interpolate(x, size=29) @ 2,4,13
    F.interpolate(x, scale_factor=1.7) @ 2,4,13
    F.interpolate(x, size=29, mode='linear') @ 2,4,13
    F.interpolate(x, scale_factor=0.4, mode='linear') @ 2,4,13
    F.interpolate(x, size=29, mode='linear', align_corners=True) @ 2,4,13
    F.interpolate(x, size=(7, 5, 9)) @ 1,2,4,5,6
    F.interpolate(x, size=(7, 5, 9), mode='trilinear') @ 1,2,4,5,6
    F.interpolate(x, size=(7, 5, 9), mode='trilinear', align_corners=True) @ 1,2,4,5,6
    F.interpolate(x, size=(7, 5, 9), mode='nearest-exact') @ 1,2,4,5,6
    F.interpolate(x, size=(13, 13)) @ 1,3,7,7
    F.interpolate(x, size=(100, 77)) @ 1,2,33,41
    F.interpolate(x, size=(100, 77), mode='bilinear') @ 1,2,33,41
    F.interpolate(x, scale_factor=0.7) @ 1,2,33,41
    F.interpolate(x, scale_factor=1.1) @ 1,2,33,41
    F.interpolate(x, scale_factor=1.1, mode='bilinear') @ 1,2,33,41
    F.pixel_shuffle(x, 2)
    F.pixel_unshuffle(x, 2) @ 2,4,8,12
    F.pixel_shuffle(x, 2) @ 8,3,4
    F.channel_shuffle(x, 2)
    F.grid_sample(x, t(2, 5, 6, 2))
    F.grid_sample(x, t(2, 5, 6, 2), align_corners=True)
    F.grid_sample(x, t(2, 5, 6, 2), 'nearest', align_corners=False)
    F.grid_sample(x, t(2, 5, 6, 2), 'bicubic', align_corners=False)
    F.grid_sample(x, t(2, 5, 6, 2), 'bicubic', 'border', align_corners=True)
    F.grid_sample(x, t(2, 5, 6, 2), padding_mode='border', align_corners=False)
    F.grid_sample(x, t(2, 5, 6, 2), padding_mode='reflection', align_corners=False)
    F.grid_sample(x, t(2, 5, 6, 2), padding_mode='reflection', align_corners=True)
    F.grid_sample(x, t(2, 5, 6, 2), 'nearest', 'reflection', align_corners=True)
    F.grid_sample(x, t(2, 5, 6, 2), 'nearest', 'border', align_corners=True)
    F.grid_sample(x, t(1, 3, 4, 5, 3), align_corners=True) @ 1,2,4,5,6
    F.grid_sample(t(2, 3, 5, 6), x[:, :2].permute(0, 2, 3, 1), align_corners=False)
    F.affine_grid(x[:, 0, :2, :3].contiguous(), (2, 3, 5, 6), align_corners=False)
    F.affine_grid(x[:, 0, :2, :3].contiguous(), (2, 3, 5, 6), align_corners=True)
""",
    special=(np.nan,),
)

PADS = cases("""
    F.pad(x, (1, 2))
    F.pad(x, (1, 2, 3, 0), value=1.5)
    F.pad(x, (-1, 2, 3, -2))
    F.pad(x, (-1, -2))
    F.pad(x, (0, 0, 0, 0, 1, 2), value=-inf)
    F.pad(x, (0, 0, 0, 0, 1, 1, 1, 0))
    F.pad(x, (1, 2, 3, 0), mode='reflect')
    F.pad(x, (1, 2, 3, 0), mode='replicate')
    F.pad(x, (1, 2, 3, 0), mode='circular')
    F.pad(x, (-1, 2, 3, -2), mode='reflect')
    F.pad(x, (-1, 2, 3, -2), mode='replicate')
    F.pad(x, (-1, 2, 3, -2), mode='circular')
    F.pad(x, (1, 2), mode='reflect') @ 2,4,13
    F.pad(x, (1, 2), mode='replicate') @ 2,4,13
    F.pad(x, (1, 2), mode='circular') @ 2,4,13
    F.pad(x, (1, 2, 0, 1, 1, 0), mode='replicate') @ 1,2,4,5,6
    F.pad(x, (1, 2, 0, 1), mode='reflect') @ 4,5,6
    F.pad(x.long(), (1, 2), value=7)
    F.pad(x > 0, (1, 2), value=True)
""")

VIEWS = cases("""
    x[:, -3:-1]
    x[:, :, 1:100]
    x[:, :, ::2]
    x[..., 3:10:3]
    x[:, :, -100:4]
    x[:, :, 5:5].sum() + x
    x[:, :, 7:3].sum() + x
    x[:, -1]
    x[-1, 2]
    x[:, None, ..., -1]
    x[:, [0, 2, -1]]
    x[:, i([3, -4, 1])]
    x[:, :, i([3, -4, 1])]
    x[:, i([0, -1, 2]), i([1, 2, -3])]
    x[:, :, i([0, -1, 2]), i([1, 2, -3])]
    x[i([0, -1]), :, i([1, -2])]
    x[i([[0], [1]]), i([[0, 1, -1]])]
    x[:, i([[0, 1], [2, -1]])]
    x[:, i([[0], [1]]), :, i([[0, 1, -1]])]
    x[:, i([0, 1]), :, 1]
    x[:, i([0, 1]), 2:5, i([2, 3])]
    x[:, i([[0, 1]]), :, i([[1], [2]])]
    x[:, :, i([[0, 1]]), i([[1], [2]])]
    x[:, :, i([[0], [1]]), i([[1, 2, -2]])]
    x[i([0]), :, i([1, 2]), :]
    x[:, b(4).logical_or(i([True, False, False, False]))]
    x[..., i([True, False, True, True, False, True, True, False, True, True, False])]
    torch.select(x, 1, -2)
    torch.select(x, -1, 3)
    torch.narrow(x, 2, 3, 4)
    torch.narrow(x, -1, -4, 3)
    torch.index_select(x, 1, i([0, 2, 3]))
    torch.index_select(x, -1, i([0, 2, 3, 3]))
    torch.gather(x, 3, i([[[[0, 2], [1, 3]]]]))
    torch.gather(x, -2, i([[[[0, 2], [1, 3]]]]))
    torch.gather(x, 1, x.long().abs() % 4)
    torch.take(x, i([0, -1, 100, -700]))
    torch.take_along_dim(x, i([[[[0, 2, -1]]]]), 3)
    torch.flip(x, (1, -1))
    torch.flip(x, [-2])
    torch.fliplr(x)
    torch.rot90(x, 1, [2, 3])
    torch.rot90(x, 3, [-1, 1])
    torch.roll(x, 2)
    torch.roll(x, -3, 3)
    torch.roll(x, (1, -2), (1, -1))
    torch.roll(x, (20, 4), (2, 2))
    torch.roll(x, 1, 0) @ 1,3
    x.permute(0, -1, 1, 2)
    x.transpose(-1, 1)
    x.movedim(1, -1)
    x.swapaxes(0, -2)
    x.mT
    torch.t(x) @ 3,5
    x.unsqueeze(-1)
    x.unsqueeze(-5)
    x.unsqueeze(2)
    x.squeeze() @ 1,3,1,5
    x.squeeze(0) @ 1,3,1,5
    x.squeeze(-2) @ 1,3,1,5
    x.squeeze(1) @ 1,3,1,5
    x.squeeze((0, 1)) @ 1,3,1,5
    x.squeeze((0, 2, -1)) @ 1,3,1,5
    x.squeeze((1, 3)) @ 1,3,1,5
    x.flatten(1)
    x.flatten(1, -2)
    x.flatten(-3, -2)
    x.unflatten(1, (2, -1))
    x.unflatten(-1, (11, 1))
    x.view(2, -1, 11)
    x.reshape(-1)
    x.reshape(2, 2, 2, 99)
    x.expand(-1, 3, -1, 4) @ 2,1,3,1
    x.expand(5, 2, 3) @ 3
    x.expand_as(t(5, 4, 3)) @ 4,1
    torch.broadcast_to(x, (2, 5, 3)) @ 5,1
    x.repeat(2, 1, 3, 1)
    x.repeat(2, 1, 1, 1, 2)
    x.tile(2)
    x.tile((2, 1, 3))
    x.repeat_interleave(2, 1)
    x.repeat_interleave(3, -1)
    x.repeat_interleave(2)
    x.repeat_interleave(i([1, 2, 0, 3]), 1)
    torch.cat((x, t(2, 2, 9, 11)), 1)
    torch.cat((x, x * 2, -x), -1)
    torch.cat((x, x.long()), 0)
    torch.cat((x, x.double()), 1)
    torch.cat((x, t(0)), 1)
    torch.hstack((x, x))
    torch.dstack((x, x))
    torch.stack((x, -x), -1)
    torch.stack((x, -x), 1)
    torch.stack((x, -x), -4)
    torch.cat(torch.split(x, 2, 1)[::-1], 1)
    torch.cat(torch.split(x, 4, -1)[::-1], -1)
    torch.split(x, [1, 3], 1)[1]
    torch.split(x, [4, 0, 7], -1)[2]
    torch.split(x, 20, 2)[0]
    torch.split(x, 6, 2)[1]
    torch.chunk(x, 4, -1)[-1]
    torch.chunk(x, 5, 2)[3]
    torch.chunk(x, 5, -1)[3]
    torch.chunk(x, 100, 1)[2]
    torch.tensor_split(x, 3, 2)[1]
    torch.tensor_split(x, (2, 5), -1)[2]
    x.unbind(1)[2]
    x.unbind(-1)[-3]
    x.unbind(0)[0] @ 1,3
    x.unfold(2, 3, 2)
    x.unfold(-1, 4, 1)
    x.as_strided((2, 3), (3, 1))
    x.as_strided((2, 3), (1, 2))
    x.as_strided((2, 3), (3, 1), 5)
    torch.meshgrid(x, t(5), indexing='ij')[1] + torch.meshgrid(x, t(5), indexing='ij')[0] @ 3
    torch.meshgrid(x, t(5), indexing='xy')[0] @ 3
    torch.slice_scatter(x, t(2, 4, 3, 11), 2, 1, 4)
    torch.slice_scatter(x, t(2, 4, 4, 11), 2, 1, 9, 2)
    torch.slice_scatter(x, t(2, 4, 9, 4), -1, -5, -1)
    torch.select_scatter(x, t(2, 9, 11), 1, -2)
    torch.scatter(x, 1, i([[[[0, 1]], [[2, 3]]]]), t(1, 2, 1, 2))
    torch.scatter(x, -1, i([[[[0, 1]], [[2, 3]]]]), 5.0)
    torch.scatter(x, 1, i([[[[0, 1]], [[2, 3]]]]), t(1, 2, 1, 2), reduce='add')
    torch.scatter_add(x, 1, i([[[[0, 1]], [[0, 3]]]]), t(1, 2, 1, 2))
    torch.scatter_reduce(x, 1, i([[[[0, 1]], [[0, 3]]]]), t(1, 2, 1, 2), 'amax')
    torch.index_add(x, 1, i([0, 2]), t(2, 2, 9, 11), alpha=2)
    torch.index_copy(x, 1, i([0, 2]), t(2, 2, 9, 11))
    torch.index_fill(x, 1, i([0, 2]), 3.0)
    torch.index_put(x, (i([0, 1]), i([2, -1])), t(9, 11))
    torch.index_put(x, (i([0, 0]), i([2, 2])), t(2, 9, 11), accumulate=True)
    torch.masked_scatter(x, x > 0, t(2, 4, 9, 11))
    torch.ops.aten.index_put(x, [None, i([0, 2])], t(2, 2, 9, 11))
    F.one_hot(x.long().abs() % 5, 5)
    F.one_hot(x.long().abs() % 5, 8)
    F.embedding(x.long().abs() % 7, t(7, 3))
    F.embedding(x.long().abs() % 7, t(7, 3), padding_idx=2)
    F.embedding(x.long().abs() % 7, t(7, 3)) @ 5
    torch.zeros(2, 4, 9, 11).masked_fill(x > 0, 1.0)
    torch.atleast_3d(x) @ 3,5
    x.view_as(t(8, 99))
    x.reshape_as(t(8, 99))
    torch.block_diag(x, t(2, 3)) @ 3,4
    torch.vander(x, 4) @ 5
    torch.diff(x, dim=1)
    torch.diff(x, 2)
    torch.combinations(x) @ 4
    torch.cartesian_prod(x, t(3)) @ 4
    torch.view_as_real(torch.complex(x, x))
    x.view(torch.int32)
    x.size(1) * x
    x.numel() + x
""")

STATISTICS = cases("""
    x.mean()
    x.mean(1)
    x.mean((-1, 0), keepdim=True)
    x.mean((2, 3), dtype=torch.float64)
    x.mean(())
    x.long().float().mean(1)
    x.sum()
    x.sum(-2)
    x.sum((1, -1), keepdim=True)
    x.sum(1, dtype=torch.float64)
    x.long().sum(1)
    (x > 0).sum(1)
    (x > 0).sum()
    x.sum(())
    x.int().sum(-1, dtype=torch.int32)
    x.long().sum(-1, dtype=torch.float32)
    x.nansum(1)
    x.nanmean(1)
    x.prod(1)
    x.prod(-1, keepdim=True)
    x.prod()
    x.long().clamp(-2, 2).prod(1)
    (x > 0).prod(1)
    x.std()
    x.std(1)
    x.std((2, 3), correction=0)
    x.std(-1, correction=2, keepdim=True)
    x.std(1, unbiased=False)
    x.std((0, -1), unbiased=True, keepdim=True)
    x.var()
    x.var(1)
    x.var((2, 3), correction=0)
    x.var(-1, correction=2.5, keepdim=True)
    x.var(1, unbiased=False)
    x.var((), correction=0)
    x.var(None, correction=3, keepdim=True)
    x.var(0) @ 1,3,5
    torch.var_mean(x, (1, 2), correction=0)[0]
    x.amax(1)
    x.amax((1, -1), keepdim=True)
    x.amax()
    x.amin(-2)
    x.amin((0, 1))
    x.aminmax(dim=1)[1]
    x.aminmax()[0]
    (x * 3).long().amax(1)
    x.max()
    x.min()
    x.max(1)[0]
    x.max(1)[1]
    x.max(-1, keepdim=True)[0]
    x.max(-1, keepdim=True)[1]
    x.min(1)[0]
    x.min(-2, keepdim=True)[1]
    x.round().max(1)[1]
    x.round().min(1)[1]
    x.argmax(1)
    x.argmax()
    x.argmax(-1, keepdim=True)
    x.argmin(1)
    x.argmin()
    x.argmin(-2, keepdim=True)
    x.round().argmax(1)
    x.round().argmin(-1)
    x.argmax(1) @ 2,1,3
    (x > 0).any()
    (x > 0).any(1)
    (x > 2).any(-1, keepdim=True)
    (x > 2).any((1, 2))
    x.any(1)
    x.long().any(1)
    x.long().any()
    (x > 0).all()
    (x > 0).all(1)
    (x > -2).all(-1, keepdim=True)
    (x > -2).all((1, 2))
    x.all(1)
    x.count_nonzero(1)
    x.logsumexp(1)
    x.logsumexp((1, -1), keepdim=True)
    x.norm()
    x.norm(dim=1)
    x.norm(1, (1, 2), keepdim=True)
    x.norm(inf, -1)
    x.norm(-inf, -1)
    x.norm(0, 1)
    x.norm(3.5, 1)
    torch.linalg.vector_norm(x, 2, (1, 2))
    torch.linalg.vector_norm(x, 0, 1)
    torch.linalg.vector_norm(x, 2, 1, True, dtype=torch.float64)
    torch.linalg.vector_norm(x, -1, 1)
    torch.linalg.vector_norm(x)
    torch.linalg.matrix_norm(x)
    torch.linalg.norm(x, dim=(2, 3))
    torch.dist(x, t(11))
    x.median()
    x.median(1)[0]
    x.median(-1)[1]
    x.median(-1, keepdim=True)[0]
    x.nanmedian(1)[0]
    x.mode(-1)[0]
    x.quantile(0.3, 1)
    x.kthvalue(2, 1)[0]
    x.cumsum(1)
    x.cumsum(-1)
    x.cumsum(0, dtype=torch.float64)
    x.long().cumsum(1)
    (x > 0).cumsum(1)
    x.int().cumsum(1)
    x.cumprod(1)
    x.cumprod(-1, dtype=torch.float64)
    x.cummax(1)[0]
    x.cummin(-1)[0]
    x.logcumsumexp(1)
    x.topk(2, 1)[0]
    x.topk(2, 1)[1]
    x.topk(3, -1, largest=False)[0]
    x.topk(3, -1, largest=False)[1]
    x.topk(3, sorted=False)[0].sum(-1)
    x.topk(3)[0]
    x.topk(4, 1)[1]
    x.round().topk(3)[0]
    x.round().topk(3, largest=False)[0]
    x.sort(1)[0]
    x.sort(-1, descending=True)[0]
    x.sort(-1, descending=True)[1]
    x.sort(-2)[1]
    torch.sort(x.round(), dim=-1, stable=True)[1]
    torch.sort(x.round(), stable=True, dim=-1, descending=True)[1]
    x.round().sort(-1)[1]
    x.argsort(1)
    x.argsort(-1, descending=True)
    torch.argsort(x.round(), dim=-1, stable=True)
    x.round().argsort(-1, True)
    x.msort()
    x.long().abs().bincount(minlength=9) @ 5
    x.histc(5) @ 20
    x.corrcoef() @ 3,8
    x.cov() @ 3,8
    x.renorm(2, 1, 3.0)
""")

NORMS = cases(
    """
    F.conv_transpose1d(x, t(4, 3, 3), None, 1, 1, 0, 2, 3) @ 2,4,13
    F.scaled_dot_product_attention(x, x, x, is_causal=True)
    torch.std_mean(x, 1, keepdim=True)[1]
    F.conv_transpose2d(x, t(4, 6, 3, 2), None, 1, 0, 0, 1, 2)
    F.conv_transpose2d(x, t(4, 3, 3, 2), t(6), 3, 2, 1, 2, (2, 3))

    F.batch_norm(x, t(4), t(4).abs() + 0.1)
    F.batch_norm(x, t(4), t(4).abs() + 0.1, t(4), t(4))
    F.batch_norm(x, t(4), t(4).abs() + 0.1, t(4), None)
    F.batch_norm(x, t(4), t(4).abs() + 0.1, None, t(4), eps=0.3)
    F.batch_norm(x, t(4), t(4).abs() + 0.1, t(4), t(4), False, 0.4, 0.01)
    F.batch_norm(x, t(4), t(4).abs() + 0.1, t(4)) @ 5,4
    F.batch_norm(x, t(4), t(4).abs() + 0.1, t(4)) @ 5,4,7
    F.batch_norm(x, t(4), t(4).abs() + 0.1, t(4)) @ 1,4,3,4,5
    F.batch_norm(x, None, None, t(4), t(4), True)
    F.batch_norm(x, None, None, t(4), t(4), True, eps=0.2) @ 3,4,6
    F.batch_norm(F.conv2d(x, t(4, 4, 1, 1)), t(4), t(4).abs() + 0.1, t(4), None)
    F.batch_norm(F.conv2d(x, t(4, 4, 1, 1)), t(4), t(4).abs() + 0.1, None, t(4), eps=0.5)
    F.instance_norm(x)
    F.instance_norm(x, None, None, t(4), t(4))
    F.instance_norm(x, None, None, t(4), None, eps=0.3)
    F.instance_norm(x, t(4), t(4).abs() + 0.1, t(4), t(4), False)
    F.instance_norm(x) @ 2,4,13
    F.instance_norm(x) @ 1,2,4,5,6
    F.layer_norm(x, (11,))
    F.layer_norm(x, (9, 11), t(9, 11), t(9, 11))
    F.layer_norm(x, (11,), t(11))
    F.layer_norm(x, (11,), None, t(11))
    F.layer_norm(x, (4, 9, 11), eps=0.4)
    F.layer_norm(x, (11,), t(11), t(11)) @ 3,11
    F.group_norm(x, 2)
    F.group_norm(x, 4, t(4), t(4))
    F.group_norm(x, 1, t(4), None)
    F.group_norm(x, 2, None, t(4), eps=0.4)
    F.group_norm(x, 2, t(4), t(4)) @ 2,4,13
    F.group_norm(x, 2, t(4), t(4)) @ 3,4
    F.group_norm(x, 2) @ 1,4,3,4,5
    F.rms_norm(x, (11,))
    F.rms_norm(x, (9, 11), t(9, 11), 0.3)
    F.cross_entropy(x, i([1, 2])) @ 2,5
    F.nll_loss(F.log_softmax(x, 1), i([1, 2])) @ 2,5
    F.mse_loss(x, t(11).expand(2, 4, 9, 11))
    F.l1_loss(x, t(11).expand(2, 4, 9, 11), reduction='sum')
    F.smooth_l1_loss(x, t(11).expand(2, 4, 9, 11), beta=0.4)
    torch._C._nn.gelu(x, approximate='tanh')
""",
    special=(),
)

RECURRENT = cases(
    """
    torch.lstm(x, [t(1, 2, 6)] * 2, [t(24, 5), t(24, 6), t(24), t(24)], True, 1, 0.0, False, False, True)[0] @ 2,3,5
    torch.lstm(x, [t(1, 2, 6)] * 2, [t(24, 5), t(24, 6), t(24), t(24)], True, 1, 0.0, False, False, True)[1] @ 2,1,5
    torch.lstm(x, [t(1, 2, 6)] * 2, [t(24, 5), t(24, 6), t(24), t(24)], True, 1, 0.0, False, False, True)[2] @ 2,1,5
    torch.gru(x, t(1, 2, 6), (t(18, 5), t(18, 6), t(18), t(18)), True, 1, 0.0, False, False, True)[0] @ 2,3,5
    torch.gru(x, t(1, 2, 6), (t(18, 5), t(18, 6), t(18), t(18)), True, 1, 0.0, False, False, False)[1] @ 3,2,5
    torch.rnn_tanh(x, t(1, 2, 6), (t(6, 5), t(6, 6), t(6), t(6)), True, 1, 0.0, False, False, True)[0] @ 2,3,5
    torch.rnn_relu(x, t(1, 2, 6), (t(6, 5), t(6, 6), t(6), t(6)), True, 1, 0.0, False, False, True)[0] @ 2,3,5
""",
    special=(),
)
ALL = [*ACTIVATIONS, *ELEMENTWISE, *CONVOLUTIONS, *POOLS, *RESIZES, *PADS, *VIEWS, *STATISTICS, *NORMS, *RECURRENT]
