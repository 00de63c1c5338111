"""What tests of several folders share: small episodes and networks, short runs, and a learner's meta-gradient."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lightning_meta.backbones import Conv4
from lightning_meta.data import GlyphEpisodes
from lightning_meta.episode import Episode
from lightning_meta.learner import MetaLearner
from lightning_meta.mapping import Compiled, MetaGradient, chunk_gradient, meta_gradient
from lightning_meta.params import Params

RATE = 0.4
PATHS: dict[str, dict[str, Any]] = {
    "vectorised": {"chunk": None},
    "chunked": {"chunk": 2},
    "looped": {"chunk": 1},
    "compiled": {"chunk": None, "compiled": True},  # in one chunk, since every size is traced, which takes seconds
}


# Tasks of random images, and the meta-gradient over them.


def image_episode(tasks: int = 3, ways: int = 3, shots: int = 2, queries: int = 2, steps: int = 1) -> Episode:
    """Random 8 x 8 images with labels, in the default precision, drawn from the global generator."""
    support, query = ways * shots, ways * queries
    return Episode(
        torch.randn(tasks, support, 1, 8, 8),
        torch.arange(ways).repeat_interleave(shots).expand(tasks, -1),
        torch.randn(tasks, query, 1, 8, 8),
        torch.arange(ways).repeat_interleave(queries).expand(tasks, -1),
        torch.arange(support).expand(tasks, steps, -1),
        torch.arange(tasks),
        torch.arange(ways).expand(tasks, -1),
    )


def tasks_of(episode: Episode) -> list[Episode]:
    """Its tasks, each without the task axis."""
    return [Episode(*(tensor[task] for tensor in episode)) for task in range(episode.tasks)]


def network() -> nn.Module:
    """A small Conv4 for `image_episode`."""
    torch.manual_seed(0)
    return Conv4(3, filters=4, image_size=8, head="flatten")


def gradient(
    learner: MetaLearner, episode: Episode, chunk: int | None = None, compiled: bool = False, **options: Any
) -> MetaGradient:
    """The meta-gradient at the start of a run, by one of `PATHS`."""
    run = chunk_gradient(learner.outer_loss)
    arguments = learner.meta_parameters(), episode, learner.carry.tree(), torch.zeros(())
    return meta_gradient(Compiled(run) if compiled else run, *arguments, chunk=chunk, **options)


def query_loss(model: nn.Module, weights: Params, task: Episode) -> Tensor:
    """Cross entropy of the queries at these weights."""
    return functional.cross_entropy(functional_call(model, weights, (task.query_x,)), task.query_y)


# Short runs.


def glyphs(**changes: Any) -> GlyphEpisodes:
    """Drawn characters of few classes, three in a task."""
    settings: dict[str, Any] = {"train_classes": 8, "validation_classes": 4, "test_classes": 4, "meta_batch_size": 4}
    return GlyphEpisodes(**{"ways": 3} | settings | changes)


def glyph_network() -> nn.Module:
    """A small Conv4 for `glyphs`."""
    torch.manual_seed(0)
    return Conv4(3, filters=4)


def trainer(tmp_path: Path, **changes: Any) -> Trainer:
    """A trainer of two meta-steps on the CPU, without validation, that writes nothing."""
    settings: dict[str, Any] = {"default_root_dir": tmp_path, "max_steps": 2, "logger": False, "accelerator": "cpu"}
    settings |= {
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
    }
    return Trainer(**settings | changes)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """An outer optimizer without moments."""
    return torch.optim.SGD(parameters, lr=0.01)


# The learned inner rule.


def torch_lstm(meta: Params) -> nn.LSTM:
    """torch's own with the weights of an `LSTMOptimizer`."""
    units = len(meta["lstm.0.bias"]) // 4
    lstm = nn.LSTM(2, units, 2)
    for layer in range(2):
        inputs = 2 if layer == 0 else units
        weight = meta[f"lstm.{layer}.weight"].detach().T
        values = {
            "weight_ih": weight[:, :inputs],
            "weight_hh": weight[:, inputs:],
            "bias_ih": meta[f"lstm.{layer}.bias"],
        }
        values["bias_hh"] = torch.zeros(4 * units)
        for name, value in values.items():
            getattr(lstm, f"{name}_l{layer}").data = value.detach().clone()
    return lstm
