"""The meta-steps in plain PyTorch on the page about one episode are those of the package."""

import copy
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from lightning_meta import MAML, Conv4, Episode, GlyphEpisodes, InnerLoop, MetaLearner, Reptile
from lightning_meta.inner import SGD
from tests.docs.pages import blocks

META_STEPS, LR = 2, 0.3


@pytest.fixture
def page() -> SimpleNamespace:
    """What the page defines."""
    names: dict[str, object] = {}
    for text in blocks("docs/episode.md", "python"):
        exec(text, names)
    return SimpleNamespace(**names)


def episodes(learner: MetaLearner) -> GlyphEpisodes:
    """Small tasks; the learner says what its inner loop wants drawn."""
    data = GlyphEpisodes(
        ways=3, shots=2, queries=2, meta_batch_size=3, validation_tasks=0, test_tasks=0, train_classes=9,
        validation_classes=0, test_classes=0,
    )  # fmt: skip
    data.connect(learner.training_batches(), learner.evaluation_batches())
    return data


def train(learner: MetaLearner, data: GlyphEpisodes) -> dict[str, Tensor]:
    trainer = Trainer(
        max_steps=META_STEPS, accelerator="cpu", precision="64-true", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(learner, data)
    return dict(learner.backbone.named_parameters())


def tasks_of(data: GlyphEpisodes, meta_step: int) -> list[Episode]:
    """The tasks of one meta-step in float64, each without the task axis."""
    episode = data.draw("train", torch.arange(3) + 3 * meta_step)
    double = [tensor.double() if tensor.is_floating_point() else tensor for tensor in episode]
    return [Episode(*(tensor[i] for tensor in double)) for i in range(3)]


@pytest.mark.parametrize("method", ["maml", "reptile"])
def test_the_page_and_the_package_take_the_same_meta_steps(page: SimpleNamespace, method: str) -> None:
    torch.manual_seed(0)
    network = Conv4(outputs=3, filters=4).double()
    inner = InnerLoop(SGD(LR), steps=2, batch_size=4)
    if method == "maml":
        learner: MetaLearner = MAML(copy.deepcopy(network), inner, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)  # Adam would enlarge roundings of zero
    else:
        learner = Reptile(copy.deepcopy(network), inner, carry_moments=False, lr_scheduler=None)
        optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    data, start = episodes(learner), copy.deepcopy(network.state_dict())
    meta_step = getattr(page, f"{method}_step")
    for step in range(META_STEPS):
        meta_step(network, optimizer, tasks_of(data, step), LR)
    trained = train(learner, data)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(trained[name], weight, rtol=1e-9, atol=1e-11)
    moved = [float((weight.detach() - start[name]).abs().max()) for name, weight in network.named_parameters()]
    assert max(moved) > 1e-3
