"""The recurrent control: a stack of tanh RNN layers reads the same tokens one after the other, and last the query.

Layer l at token t holds  h_t = tanh(W_x^T x_t + W_h^T h_{t-1} + b),  x_t the token for the first layer (there W_x is
W_E), and the layer below's h_t for the others. The prediction is W_U^T h + b_U of the top layer at the query. An RNN
has no product of two tokens, which a TD error weighed by features needs (appendix of arXiv 2405.13861).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.config import RecurrentConfig
from models.ensemble import Ensemble
from models.hooked import HookPoint
from tasks.layout import Prompt, transition_layout


class RecurrentLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hook_pre = HookPoint()  # [seeds, tasks, pos, d_hidden]: what the token (or layer below) brings
        self.hook_hidden = HookPoint()  # the same: the state after each token

    def forward(self, x: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor, is_context: Tensor) -> Tensor:
        """x [seeds, tasks, pos, d]; weights [seeds, d, d_hidden]. Every query is read from the context's end."""
        brought = self.hook_pre(x @ w_x[:, None] + b[:, None, None])
        end = torch.zeros_like(brought[..., 0, :])
        states = []
        for token in brought[..., is_context, :].unbind(-2):
            end = torch.tanh(torch.baddbmm(token, end, w_h))
            states.append(end)
        context = torch.stack(states, -2)
        queries = torch.tanh(brought[..., ~is_context, :] + (end @ w_h)[..., None, :])
        order = torch.cat([torch.nonzero(is_context), torch.nonzero(~is_context)])[:, 0].argsort()
        return self.hook_hidden(torch.cat([context, queries], -2)[..., order, :])


class RecurrentNetwork(Ensemble):
    """An ensemble of RNNs; weights as in RecurrentConfig.weight_shapes."""

    config_type = RecurrentConfig
    config: RecurrentConfig

    def __init__(self, config: RecurrentConfig, weights: Mapping[str, Tensor]) -> None:
        super().__init__(config, weights)
        self.layout = transition_layout(config.d_features, discount=config.gamma)
        self.layers = nn.ModuleList(RecurrentLayer() for _ in range(config.n_layers))
        self.setup()

    def forward(self, prompt: Prompt) -> Float[Tensor, "seeds tasks pos d_hidden"]:
        """The top layer's states for prompts with batch axes (seeds or 1, tasks)."""
        weights = dict(self.named_parameters())
        x = prompt.tokens.expand(self.n_seeds, *prompt.tokens.shape[1:])
        for i, layer in enumerate(self.layers):
            w_x = weights["W_E"] if i == 0 else weights["W_x"][:, i - 1]
            x = layer(x, w_x, weights["W_h"][:, i], weights["b"][:, i], prompt.is_context)
        return x

    def predict(self, prompt: Prompt) -> Float[Tensor, "seeds tasks queries 1"]:
        """Predicted values of the queries."""
        parameters = dict(self.named_parameters())
        return self(prompt)[..., prompt.queries, :] @ parameters["W_U"][:, None] + parameters["b_U"][:, None, None]
