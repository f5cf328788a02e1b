"""Our models as torch models with the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from frontend import nn
from frontend.autograd import Tensor
from frontend.models import LanguageModel


def as_torch(module: nn.Module) -> Any:
    """The same model, with copies of its weights, as a torch Module in training mode.

    Raises:
        TypeError: a layer that has no counterpart here.
    """
    import torch

    layers = _Layers(torch)
    return layers.convert(module).train()


class _Layers:
    """Converts layers; holds torch, which is imported only when it is needed."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch

    def parameter(self, t: Tensor, *axes: int) -> Any:
        """A copy of a tensor, its axes in another order."""
        array = np.ascontiguousarray(t.numpy().transpose(axes) if axes else t.numpy())
        return self.torch.nn.Parameter(self.torch.from_numpy(array.copy()))

    def convert(self, m: nn.Module) -> Any:
        tnn = self.torch.nn
        match m:
            case nn.Sequential():
                return tnn.Sequential(*map(self.convert, m.layers))
            case nn.Linear():
                return self.linear(m)
            case nn.Conv():
                layer = tnn.Conv2d(m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding, m.dilation, m.groups,
                                   bias=m.bias is not None)  # fmt: skip
                layer.weight = self.parameter(m.weight, 3, 2, 0, 1)
                if m.bias is not None:
                    layer.bias = self.parameter(m.bias)
                return layer
            case nn.BatchNorm1d():
                layer = (tnn.BatchNorm2d if isinstance(m, nn.BatchNorm2d) else tnn.BatchNorm1d)(
                    m.dim, m.eps, m.momentum
                )
                layer.weight, layer.bias = self.parameter(m.weight), self.parameter(m.bias)
                layer.running_mean = self.parameter(m.running_mean).data
                layer.running_var = self.parameter(m.running_var).data
                return layer
            case nn.LayerNorm1d():
                layer = tnn.LayerNorm(m.dim, m.eps)
                layer.weight, layer.bias = self.parameter(m.weight), self.parameter(m.bias)
                return layer
            case nn.Embedding():
                layer = tnn.Embedding(m.num_embeddings, m.embedding_dim)
                layer.weight = self.parameter(m.weight)
                return layer
            case nn.LSTM():
                return self.lstm(m)
            case nn.AvgPool2d():
                return tnn.AvgPool2d(m.kernel_size, m.stride, m.padding)
            case nn.MaxPool2d():
                return tnn.MaxPool2d(m.kernel_size, m.stride, m.padding)
            case nn.Dropout():
                return tnn.Dropout(m.p)
            case nn.ReLU() | nn.Tanh() | nn.Sigmoid() | nn.GELU() | nn.SiLU() | nn.Flatten() | nn.Identity():
                return getattr(tnn, type(m).__name__)()
            case _:
                return self.compound(m)

    def compound(self, m: nn.Module) -> Any:
        """Layers with a forward of their own."""
        torch, convert = self.torch, self.convert

        class Residual(torch.nn.Module):
            def __init__(self, m: nn.Residual) -> None:
                super().__init__()
                self.fn = convert(m.fn)

            def forward(self, x: Any) -> Any:
                return self.fn(x) + x

        class Language(torch.nn.Module):
            def __init__(self, m: LanguageModel) -> None:
                super().__init__()
                self.embedding, self.body, self.head = map(convert, (m.embedding, m.body, m.head))

            def forward(self, x: Any, h: Any = None) -> Any:
                y, state = self.body(self.embedding(x), h)
                return self.head(y), state

        kinds = {nn.Residual: Residual, LanguageModel: Language}
        return kinds[type(m)](m) if type(m) in kinds else self.transformer(m)

    def transformer(self, m: nn.Module) -> Any:
        """A transformer and its parts."""
        torch, convert = self.torch, self.convert

        class Attention(torch.nn.Module):
            def __init__(self, m: nn.AttentionLayer) -> None:
                super().__init__()
                self.norms = torch.nn.ModuleList(map(convert, (m.prenorm_q, m.prenorm_k, m.prenorm_v)))
                self.maps = torch.nn.ModuleList(map(convert, (m.q_projection, m.k_projection, m.v_projection)))
                self.out = convert(m.out_projection)
                self.heads, self.causal, self.p = m.num_head, m.attn.causal, m.attn.dropout.p

            def forward(self, x: Any) -> Any:
                n, steps, _ = x.shape
                q, k, v = (
                    f(g(x)).view(n, steps, self.heads, -1).transpose(1, 2) for f, g in zip(self.maps, self.norms)
                )
                p = self.p if self.training else 0.0
                y = torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=self.causal)
                return self.out(y.transpose(1, 2).reshape(n, steps, -1))

        class Layer(torch.nn.Module):
            def __init__(self, m: nn.TransformerLayer) -> None:
                super().__init__()
                self.attention, self.dropout, self.rest = map(convert, (m.attention, m.dropout, m.feed_forward))

            def forward(self, x: Any) -> Any:
                x = x + self.dropout(self.attention(x))
                return x + self.rest(x)

        class Transformer(torch.nn.Module):
            def __init__(self, m: nn.Transformer) -> None:
                super().__init__()
                self.positions = convert(m.positions.embedding)
                self.layers = torch.nn.Sequential(*map(convert, m.layers))
                self.batch_first = m.batch_first

            def forward(self, x: Any, h: Any = None) -> Any:
                y = x if self.batch_first else x.transpose(0, 1)
                y = self.layers(y + self.positions.weight[: y.shape[1]])
                return (y if self.batch_first else y.transpose(0, 1)), None

        kinds = {nn.AttentionLayer: Attention, nn.TransformerLayer: Layer, nn.Transformer: Transformer}
        if type(m) not in kinds:
            raise TypeError(f"{type(m).__name__} has no counterpart in torch here")
        return kinds[type(m)](m)

    def linear(self, m: nn.Linear) -> Any:
        layer = self.torch.nn.Linear(m.in_features, m.out_features, bias=m.bias is not None)
        layer.weight = self.parameter(m.weight, 1, 0)
        if m.bias is not None:
            layer.bias = self.parameter(m.bias.reshape((m.out_features,)))
        return layer

    def lstm(self, m: nn.LSTM) -> Any:
        first = m.cells[0]
        layer = self.torch.nn.LSTM(first.input_size, m.hidden_size, m.num_layers, batch_first=m.batch_first)
        for n, cell in enumerate(m.cells):
            for own, other in (("W_ih", "weight_ih"), ("W_hh", "weight_hh")):
                setattr(layer, f"{other}_l{n}", self.parameter(getattr(cell, own), 1, 0))
            for own in ("bias_ih", "bias_hh"):
                setattr(layer, f"{own}_l{n}", self.parameter(getattr(cell, own)))
        return layer
