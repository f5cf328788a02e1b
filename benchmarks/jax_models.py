"""Our models as jax functions with the same weights, and their training steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from frontend import nn
from frontend.models import LanguageModel

Apply = Callable[[Mapping[str, Any], dict[str, Any], Any], Any]
"""From the parameters by name, a dictionary for the new running statistics, and the inputs, to the result."""


def as_jax(module: nn.Module) -> tuple[dict[str, Any], Apply]:
    """The same model in training mode: its parameters and running statistics by name, and the function of them.

    Images are NHWC inside, which XLA's convolutions on a CPU prefer; they come in as NCHW.

    Raises:
        TypeError: a layer that has no counterpart here.
    """
    import jax

    layers = _Layers(jax, {id(t): name for name, t in module.named_tensors()})
    apply = layers.convert(module)

    def run(p: Mapping[str, Any], stats: dict[str, Any], x: Any) -> Any:
        return apply(p, stats, x.transpose(0, 2, 3, 1) if x.ndim == 4 else x)

    return {name: jax.numpy.asarray(t.numpy()) for name, t in module.named_tensors()}, run


def jax_step(
    module: nn.Module, batch: tuple[np.ndarray, ...], optimizer: tuple[str, dict[str, Any]]
) -> Callable[[], float]:
    """A function that takes a training step: compiled as a whole, its state's memory given back to it.

    Args:
        optimizer: the name and the options, as torch has them.
    """
    import jax
    import optax

    values, apply = as_jax(module)
    trained = {name for name, _ in module.named_parameters()}
    params = {k: v for k, v in values.items() if k in trained}
    stats = {k: v for k, v in values.items() if k not in trained}
    rule = _optimizer(optax, *optimizer)
    x, y = (jax.numpy.asarray(a) for a in batch)

    def loss_of(params: Any, stats: Any, x: Any, y: Any) -> Any:
        new = dict(stats)
        out = apply({**params, **stats}, new, x)
        loss = optax.losses.softmax_cross_entropy_with_integer_labels(out.reshape(-1, out.shape[-1]), y.reshape(-1))
        return loss.mean(), new

    def step(params: Any, stats: Any, state: Any, x: Any, y: Any) -> Any:
        (loss, new), grads = jax.value_and_grad(loss_of, has_aux=True)(params, stats, x, y)
        updates, state = rule.update(grads, state, params)
        return loss, optax.apply_updates(params, updates), new, state

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    held = [params, stats, rule.init(params)]

    def take() -> float:
        loss, *held[:] = compiled(*held, x, y)
        return float(loss)

    return take


def _optimizer(optax: Any, name: str, options: Mapping[str, Any]) -> Any:
    if name == "Adam":
        return optax.adam(options["lr"])
    if name == "SGD":
        decay = optax.add_decayed_weights(options["weight_decay"])
        return optax.chain(decay, optax.sgd(options["lr"], momentum=options["momentum"]))
    raise TypeError(f"{name} has no counterpart in optax here")


class _Layers:
    """Converts layers; holds jax, which is imported only when it is needed, and the names of the tensors."""

    def __init__(self, jax: Any, names: Mapping[int, str]) -> None:
        self.jax, self.names = jax, names

    def name(self, t: Any) -> str:
        return self.names[id(t)]

    def convert(self, m: nn.Module) -> Apply:
        jax = self.jax
        plain = {nn.ReLU: jax.nn.relu, nn.Tanh: jax.numpy.tanh, nn.Identity: lambda x: x}
        match m:
            case nn.Sequential():
                return _chain([self.convert(layer) for layer in m.layers])
            case nn.Residual():
                inner = self.convert(m.fn)
                return lambda p, s, x: inner(p, s, x) + x
            case nn.Linear():
                return self.linear(m)
            case nn.Conv():
                return self.conv(m)
            case nn.BatchNorm1d():
                return self.batch_norm(m)
            case nn.LayerNorm1d():
                return self.layer_norm(m)
            case nn.Embedding():
                weight = self.name(m.weight)
                return lambda p, s, x: p[weight][x]
            case nn.Flatten():
                return lambda p, s, x: (x.transpose(0, 3, 1, 2) if x.ndim == 4 else x).reshape(x.shape[0], -1)
            case nn.Dropout() if not m.p:
                return lambda p, s, x: x
            case nn.LSTM():
                return self.lstm(m)
            case nn.TransformerLayer():
                attention, rest = self.attention(m.attention), self.convert(m.feed_forward)
                return _chain([lambda p, s, x: x + attention(p, s, x), lambda p, s, x: x + rest(p, s, x)])
            case nn.Transformer():
                return self.transformer(m)
            case LanguageModel():
                return _chain([self.convert(part) for part in (m.embedding, m.body, m.head)])
        if type(m) not in plain:
            raise TypeError(f"{m} has no counterpart in jax here")
        f = plain[type(m)]
        return lambda p, s, x: f(x)

    def linear(self, m: nn.Linear) -> Apply:
        weight, bias = self.name(m.weight), None if m.bias is None else self.name(m.bias)
        return lambda p, s, x: x @ p[weight] if bias is None else x @ p[weight] + p[bias].reshape(-1)

    def conv(self, m: nn.Conv) -> Apply:
        weight, pad = self.name(m.weight), (m.padding, m.padding)
        settings: dict[str, Any] = {
            "window_strides": (m.stride, m.stride), "padding": (pad, pad), "rhs_dilation": (m.dilation, m.dilation),
            "dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": m.groups,
        }  # fmt: skip
        bias = None if m.bias is None else self.name(m.bias)

        def run(p: Any, s: Any, x: Any) -> Any:
            y = self.jax.lax.conv_general_dilated(x, p[weight], **settings)
            return y if bias is None else y + p[bias]

        return run

    def batch_norm(self, m: nn.BatchNorm1d) -> Apply:
        weight, bias, mean, var = map(self.name, (m.weight, m.bias, m.running_mean, m.running_var))

        def run(p: Any, s: Any, x: Any) -> Any:
            axes = tuple(range(x.ndim - 1))
            centre, spread = x.mean(axes), x.var(axes)
            for name, now in ((mean, centre), (var, spread)):
                s[name] = p[name] * (1 - m.momentum) + now * m.momentum
            return (x - centre) * self.jax.lax.rsqrt(spread + m.eps) * p[weight] + p[bias]

        return run

    def layer_norm(self, m: nn.LayerNorm1d) -> Apply:
        weight, bias = self.name(m.weight), self.name(m.bias)

        def run(p: Any, s: Any, x: Any) -> Any:
            centre, spread = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
            return (x - centre) * self.jax.lax.rsqrt(spread + m.eps) * p[weight] + p[bias]

        return run

    def lstm(self, m: nn.LSTM) -> Apply:
        """One layer, by a scan over the steps."""
        (cell,) = m.cells
        w_in, w_state, b_in, b_state = map(self.name, (cell.W_ih, cell.W_hh, cell.bias_ih, cell.bias_hh))
        jax = self.jax

        def run(p: Any, s: Any, x: Any) -> Any:
            def step(state: Any, projected: Any) -> Any:
                h, c = state
                i, f, g, o = self.jax.numpy.split(projected + h @ p[w_state], 4, axis=-1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
                h = jax.nn.sigmoid(o) * jax.numpy.tanh(c)
                return (h, c), h

            zero = jax.numpy.zeros((x.shape[1], m.hidden_size), x.dtype)
            return jax.lax.scan(step, (zero, zero), x @ p[w_in] + (p[b_in] + p[b_state]))[1]

        return run

    def attention(self, m: nn.AttentionLayer) -> Apply:
        norms = [self.convert(n) for n in (m.prenorm_q, m.prenorm_k, m.prenorm_v)]
        maps = [self.convert(n) for n in (m.q_projection, m.k_projection, m.v_projection)]
        out = self.convert(m.out_projection)

        def run(p: Any, s: Any, x: Any) -> Any:
            n, steps, _ = x.shape
            q, k, v = (f(p, s, g(p, s, x)).reshape(n, steps, m.num_head, -1) for f, g in zip(maps, norms))
            y = self.jax.nn.dot_product_attention(q, k, v, is_causal=m.attn.causal)
            return out(p, s, y.reshape(n, steps, -1))

        return run

    def transformer(self, m: nn.Transformer) -> Apply:
        positions, layers = self.name(m.positions.embedding.weight), _chain([self.convert(x) for x in m.layers])

        def run(p: Any, s: Any, x: Any) -> Any:
            y = layers(p, s, x.swapaxes(0, 1) + p[positions][: x.shape[0]])
            return y.swapaxes(0, 1)

        return run


def _chain(parts: list[Apply]) -> Apply:
    def run(p: Any, s: Any, x: Any) -> Any:
        for f in parts:
            x = f(p, s, x)
        return x

    return run
