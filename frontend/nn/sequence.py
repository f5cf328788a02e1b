"""Recurrent layers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from .. import init, ops
from ..autograd import Tensor
from .basic import Dropout
from .module import Module, Parameter

State = tuple[Tensor, ...]


class _Cell(Module):
    """One step of a recurrent layer: rows (n, input_size) and a state of (n, hidden_size) tensors to the next state.

    Its weights W_ih (input_size, gates * hidden_size) and W_hh (hidden_size, gates * hidden_size), and biases bias_ih and
    bias_hh, start uniform within 1 / sqrt(hidden_size).
    """

    gates: ClassVar[int] = 1
    parts: ClassVar[int] = 1
    """Tensors of a state; the first is the result."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = "float32"
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        bound = math.sqrt(1 / hidden_size)

        def uniform(*shape: int) -> Parameter:
            return Parameter(init.rand(*shape, low=-bound, high=bound, dtype=dtype))

        width = self.gates * hidden_size
        self.W_ih, self.W_hh = uniform(input_size, width), uniform(hidden_size, width)
        self.bias_ih = uniform(width) if bias else None
        self.bias_hh = uniform(width) if bias else None

    def describe(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"

    def project(self, X: Tensor) -> Tensor:
        """What inputs (..., input_size) contribute to the gates: that of all steps can be computed at once."""
        if X.shape[-1] != self.input_size:
            raise ValueError(f"{type(self).__name__} for {self.input_size} features got a tensor of shape {X.shape}")
        y = X @ self.W_ih
        return y if self.bias_ih is None else y + self.bias_ih

    def recur(self, h: Tensor) -> Tensor:
        """What the state contributes to the gates."""
        y = h @ self.W_hh
        return y if self.bias_hh is None else y + self.bias_hh

    def gate(self, gates: Tensor, number: int) -> Tensor:
        return ops.slice_axis(gates, -1, number * self.hidden_size, (number + 1) * self.hidden_size)

    def start(self, rows: int) -> State:
        """The state of zeros."""
        return tuple(init.zeros(rows, self.hidden_size, dtype=self.W_hh.dtype) for _ in range(self.parts))

    def step(self, projected: Tensor, state: State) -> State:
        """The next state.

        Args:
            projected: `project` of this step's inputs.
        """
        raise NotImplementedError

    def forward(self, X: Tensor, h: Any = None) -> Any:
        state = self.start(X.shape[0]) if h is None else (h,) if isinstance(h, Tensor) else tuple(h)
        after = self.step(self.project(X), state)
        return after[0] if self.parts == 1 else after


class RNNCell(_Cell):
    """h' = f(x W_ih + b_ih + h W_hh + b_hh), where f is tanh or relu."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = "float32",
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dtype=dtype)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"unknown nonlinearity {nonlinearity!r}: tanh or relu")
        self.nonlinearity = nonlinearity

    def step(self, projected: Tensor, state: State) -> State:
        gates = projected + self.recur(state[0])
        return (ops.tanh(gates) if self.nonlinearity == "tanh" else ops.relu(gates),)


class LSTMCell(_Cell):
    """Long short-term memory (S. Hochreiter and J. Schmidhuber, 1997); the gates lie in the order i, f, g, o."""

    gates, parts = 4, 2

    def step(self, projected: Tensor, state: State) -> State:
        h, c = state
        gates = projected + self.recur(h)
        i, f, o = (ops.sigmoid(self.gate(gates, n)) for n in (0, 1, 3))
        c = f * c + i * ops.tanh(self.gate(gates, 2))
        return o * ops.tanh(c), c


class GRUCell(_Cell):
    """Gated recurrent unit (K. Cho et al., 2014); the gates lie in the order r, z, n."""

    gates = 3

    def step(self, projected: Tensor, state: State) -> State:
        (h,) = state
        inner = self.recur(h)
        r, z = (ops.sigmoid(self.gate(projected, n) + self.gate(inner, n)) for n in (0, 1))
        n = ops.tanh(self.gate(projected, 2) + r * self.gate(inner, 2))
        return (n + z * (h - n),)


class _Recurrent(Module):
    """Cells step by step, layer on layer.

    Args:
        num_layers: each takes the results of the one below.
        bidirectional: a second cell a layer walks backwards; results lie side by side.
        batch_first: sequences are (batch, steps, features) instead of (steps, batch, features).
        dropout: between the layers.
    """

    cell: ClassVar[type[_Cell]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        device: Any = None,
        dtype: Any = "float32",
        *,
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        **of_cell: Any,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"there is at least one layer, got {num_layers}")
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.directions = 2 if bidirectional else 1
        self.batch_first = batch_first
        self.between = Dropout(dropout)
        self.cells = [
            self.cell(input_size if n < self.directions else hidden_size * self.directions, hidden_size, bias,
                      dtype=dtype, **of_cell)
            for n in range(num_layers * self.directions)
        ]  # fmt: skip

    def forward(self, X: Tensor, h0: Any = None) -> tuple[Tensor, Any]:
        """All results and the last states.

        Args:
            X: (steps, batch, input_size), or (batch, steps, input_size).
            h0: first states (num_layers * directions, batch, hidden_size), for an LSTM two of them; zeros by default.

        Returns:
            Results (steps, batch, directions * hidden_size), laid out as X; and states as h0.
        """
        x = ops.permute(X, (1, 0, 2)) if self.batch_first else X
        starts = self._starts(x.shape[1], h0)
        ends: list[State] = []
        for layer in range(self.num_layers):
            if layer:
                x = self.between(x)
            results = []
            for direction in range(self.directions):
                number = layer * self.directions + direction
                outputs, state = self._walk(self.cells[number], x, starts[number], direction == 1)
                results.append(outputs)
                ends.append(state)
            x = ops.concat(results, -1)
        states = tuple(ops.stack(parts, 0) for parts in zip(*ends))
        return (ops.permute(x, (1, 0, 2)) if self.batch_first else x), states[0] if len(states) == 1 else states

    def _starts(self, rows: int, h0: Any) -> list[State]:
        if h0 is None:
            return [cell.start(rows) for cell in self.cells]
        given = (h0,) if isinstance(h0, Tensor) else tuple(h0)
        expected = (len(self.cells), rows, self.hidden_size)
        if len(given) != self.cell.parts or any(h.shape != expected for h in given):
            raise ValueError(f"the first state of this layer is {self.cell.parts} tensor(s) of shape {expected}")
        return [tuple(h[n] for h in given) for n in range(len(self.cells))]

    @staticmethod
    def _walk(cell: _Cell, x: Tensor, state: State, is_backward: bool) -> tuple[Tensor, State]:
        def step(state: State, projected: Tensor) -> tuple[State, Tensor]:
            after = cell.step(projected, state)
            return after, after[0]

        state, outputs = ops.scan(step, state, cell.project(x), reverse=is_backward)
        return outputs, state


class RNN(_Recurrent):
    """Layers of `RNNCell`."""

    cell = RNNCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = "float32",
        **more: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias, dtype=dtype, nonlinearity=nonlinearity, **more)

    @property
    def rnn_cells(self) -> list[_Cell]:
        """The cells, as CMU 10-414 calls them."""
        return self.cells


class LSTM(_Recurrent):
    """Layers of `LSTMCell`."""

    cell = LSTMCell

    @property
    def lstm_cells(self) -> list[_Cell]:
        """The cells, as CMU 10-414 calls them."""
        return self.cells


class GRU(_Recurrent):
    """Layers of `GRUCell`."""

    cell = GRUCell
