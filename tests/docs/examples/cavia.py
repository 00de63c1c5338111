"""CAVIA: Zintgraf et al., "Fast Context Adaptation via Meta-Learning", arXiv 1810.03642."""

import torch
from torch import nn

from lightning_meta import MetaLearner
from lightning_meta.inner import last


class ContextMLP(nn.Module):
    """A multilayer perceptron on the flattened input with the context beside it."""

    def __init__(self, outputs, inputs=784, context=10, hidden=64):
        super().__init__()
        self.register_buffer("context", torch.zeros(context))
        self.layers = nn.Sequential(nn.Linear(inputs + context, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, x):
        x = x.flatten(1)
        return self.layers(torch.cat([x, self.context.expand(len(x), -1)], 1))


class CAVIA(MetaLearner):
    """MAML whose inner loop adapts the backbone's context alone, from zero."""

    def start(self, params, task):
        return {"context": torch.zeros_like(self.backbone.context)}

    def unadapted_params(self, params, step):
        return self.adapted_params(params)

    def outer_loss(self, params, task, carry, progress):
        adapted, _ = last(self.adapt(params, task))
        return self.query_loss(adapted, task), carry
