"""A linear layer that keeps to Dale's law: each input either excites all outputs or inhibits all."""

import torch
from torch import nn


class SignedLinear(nn.Linear):
    """``[N, in_features]`` -> ``[N, out_features]``; the first ``excitatory`` inputs excite, the others inhibit."""

    def __init__(self, in_features: int, out_features: int, excitatory: int = 1):
        super().__init__(in_features, out_features, bias=False)
        self.register_buffer("sign", torch.where(torch.arange(in_features) < excitatory, 1.0, -1.0))

    def forward(self, x):
        if x.dim() != 2:
            raise ValueError(f"x has shape {tuple(x.shape)}; it must be [N, in_features]")
        return nn.functional.linear(x, self.weight.abs() * self.sign)
