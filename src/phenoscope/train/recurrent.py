"""Recurrent layers in plain operations: the fused ones cannot be mapped over the members of a fleet."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Hidden = tuple[Tensor, ...]


def plain_recurrence_(model: nn.Module) -> nn.Module:
    """Give every RNN, GRU and LSTM, layer or cell, a forward pass of plain operations on the same parameters.

    Layers take batches (batch, time, features) or (time, batch, features), cells (batch, features). Projections of an
    LSTM stay as they are.
    """
    for module in model.modules():
        if type(module) in (nn.RNN, nn.GRU, nn.LSTM) and not module.proj_size:
            module.forward = types.MethodType(_layer, module)
        elif type(module) in (nn.RNNCell, nn.GRUCell, nn.LSTMCell):
            module.forward = types.MethodType(_cell, module)
    return model


def _layer(self: Any, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
    x = x.transpose(0, 1) if self.batch_first else x
    if x.ndim != 3:
        raise ValueError(f"a recurrent layer in a fleet takes (batch, time, features), not {tuple(x.shape)}")
    directions = 2 if self.bidirectional else 1
    zero = x.new_zeros(self.num_layers * directions, x.shape[1], self.hidden_size)
    lstm = isinstance(self, nn.LSTM)
    starts = (zero, zero) if hx is None and lstm else (zero,) if hx is None else hx if lstm else (hx,)
    update, ends = _UPDATES[_kind(self)], []
    for layer in range(self.num_layers):
        sides = []
        for direction in range(directions):
            suffix = f"_l{layer}" + ("_reverse" if direction else "")
            w_in, w_hidden = getattr(self, "weight_ih" + suffix), getattr(self, "weight_hh" + suffix)
            b_in, b_hidden = (getattr(self, f"bias_{k}" + suffix) if self.bias else None for k in ("ih", "hh"))
            hidden = tuple(start[layer * directions + direction] for start in starts)
            inputs = functional.linear(x, w_in, b_in)
            seen = []
            for moment in inputs.flip(0) if direction else inputs:
                hidden = update(moment, functional.linear(hidden[0], w_hidden, b_hidden), hidden)
                seen.append(hidden[0])
            sides.append(torch.stack(seen[::-1] if direction else seen))
            ends.append(hidden)
        x = torch.cat(sides, -1) if directions == 2 else sides[0]
        if self.dropout and layer < self.num_layers - 1:
            x = functional.dropout(x, self.dropout, self.training)
    last = tuple(torch.stack(each) for each in zip(*ends, strict=True))
    return x.transpose(0, 1) if self.batch_first else x, last if lstm else last[0]


def _cell(self: Any, x: Tensor, hx: Any = None) -> Any:
    lstm = isinstance(self, nn.LSTMCell)
    if hx is None:
        zero = x.new_zeros(x.shape[0], self.hidden_size)
        hidden: Hidden = (zero, zero) if lstm else (zero,)
    else:
        hidden = hx if lstm else (hx,)
    inputs = functional.linear(x, self.weight_ih, self.bias_ih)
    after = _UPDATES[_kind(self)](inputs, functional.linear(hidden[0], self.weight_hh, self.bias_hh), hidden)
    return after if lstm else after[0]


def _kind(module: Any) -> str:
    name = type(module).__name__.removesuffix("Cell")
    return f"RNN {module.nonlinearity}" if name == "RNN" else name


def _gru(inputs: Tensor, recurrent: Tensor, hidden: Hidden) -> Hidden:
    reset_in, keep_in, new_in = inputs.chunk(3, -1)
    reset_hidden, keep_hidden, new_hidden = recurrent.chunk(3, -1)
    new = torch.tanh(new_in + torch.sigmoid(reset_in + reset_hidden) * new_hidden)
    return (new + torch.sigmoid(keep_in + keep_hidden) * (hidden[0] - new),)


def _lstm(inputs: Tensor, recurrent: Tensor, hidden: Hidden) -> Hidden:
    enter, forget, new, leave = (inputs + recurrent).chunk(4, -1)
    memory = torch.sigmoid(forget) * hidden[1] + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(memory), memory


_UPDATES: dict[str, Callable[[Tensor, Tensor, Hidden], Hidden]] = {
    "RNN tanh": lambda inputs, recurrent, _: (torch.tanh(inputs + recurrent),),
    "RNN relu": lambda inputs, recurrent, _: (torch.relu(inputs + recurrent),),
    "GRU": _gru,
    "LSTM": _lstm,
}
