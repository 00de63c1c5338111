"""CAVIA and ProtoMAML, written with what the page on algorithms says: their gradients are right, and they learn."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from lightning_meta import EpisodeDataModule, GlyphEpisodes, InnerLoop, MetaLearner, SinusoidEpisodes
from lightning_meta.episode import Episode
from lightning_meta.inner import SGD
from lightning_meta.mapping import chunk_gradient, map_tasks
from lightning_meta.params import flatten, unflatten
from tests.docs.examples.cavia import CAVIA, ContextMLP
from tests.docs.examples.proto_maml import ProtoMAML

INNER = InnerLoop(SGD(0.5), steps=2, evaluation_steps=2)


class SmoothMLP(nn.Module):
    """Without kinks, which finite differences would meet."""

    def __init__(self, inputs: int = 784) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 6), nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def cavia(**settings: object) -> CAVIA:
    network = ContextMLP(outputs=3, context=4, hidden=8)
    network.layers[1] = nn.Tanh()
    return CAVIA(network, INNER, **settings)


def proto_maml(**settings: object) -> ProtoMAML:
    return ProtoMAML(SmoothMLP(), INNER, **settings)


def glyphs(**settings: int) -> GlyphEpisodes:
    return GlyphEpisodes(
        ways=3, shots=2, queries=2, train_classes=60, validation_classes=0, test_classes=20, validation_tasks=0,
        **settings,
    )  # fmt: skip


def double(episode: Episode) -> Episode:
    return Episode(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in episode))


@pytest.mark.parametrize("make", [cavia, proto_maml])
def test_the_meta_gradient_is_that_of_finite_differences(make: Callable[..., MetaLearner]) -> None:
    torch.manual_seed(0)
    learner, data = make().double(), glyphs()
    data.connect(learner.training_batches(), learner.evaluation_batches())
    tasks, params = double(data.draw("train", torch.arange(2))), learner.meta_parameters()
    carry, progress = learner.training_carry(tasks), torch.zeros((), dtype=torch.float64)
    grads = chunk_gradient(learner.outer_loss)(params, tasks, carry, progress).grads

    def total(vector: Tensor) -> float:
        weights = unflatten(vector, params)
        losses, _ = map_tasks(learner.outer_loss, (None, 0, None, None), weights, tasks, carry, progress)
        return float(losses.sum())

    start = flatten(params)
    for _ in range(3):
        direction = torch.randn_like(start)
        measured = (total(start + 1e-5 * direction) - total(start - 1e-5 * direction)) / 2e-5
        assert float(flatten(grads) @ direction) == pytest.approx(measured, rel=1e-6)
    assert float(flatten(grads).norm()) > 1e-3


def fit_and_test(learner: MetaLearner, data: EpisodeDataModule, steps: int) -> Tensor:
    """Query loss on unseen tasks before adaptation and after each inner step."""
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", precision="64-true", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    if steps:
        trainer.fit(learner, data)
    trainer.test(learner, data, verbose=False)
    return learner.scores.intervals["query_loss"].mean


@pytest.mark.parametrize("make", [cavia, proto_maml])
def test_a_few_steps_on_characters_lower_the_loss(make: Callable[..., MetaLearner]) -> None:
    torch.manual_seed(0)
    learner, data = make(optimizer=partial(torch.optim.Adam, lr=0.01)), glyphs(meta_batch_size=8, test_tasks=100)
    untrained = fit_and_test(learner, data, 0)
    assert fit_and_test(learner, data, 30)[-1] < untrained[-1]


@pytest.mark.slow
def test_cavia_learns_sinusoids_as_in_its_paper() -> None:
    torch.manual_seed(0)
    network = ContextMLP(outputs=1, inputs=1, context=4, hidden=40)
    learner = CAVIA(
        network, InnerLoop(SGD(1.0), evaluation_steps=1), loss=nn.functional.mse_loss,
        optimizer=partial(torch.optim.Adam, lr=0.01),
    )  # fmt: skip
    before, after = fit_and_test(learner, SinusoidEpisodes(validation_tasks=0, test_tasks=200), 400)
    assert after < 0.4 * before


def test_proto_maml_starts_as_a_prototypical_network() -> None:
    torch.manual_seed(0)
    learner, data = proto_maml().double(), glyphs()
    data.connect(learner.training_batches(), learner.evaluation_batches())
    task = Episode(*(tensor[0] for tensor in double(data.draw("train", torch.arange(1)))))
    params = learner.meta_parameters()
    weights = learner.start(params, task)
    features = learner.backbone.body(task.query_x)
    prototypes = learner.backbone.body(task.support_x).view(3, 2, -1).mean(1)
    distances = torch.cdist(features, prototypes).square()
    expected = (-distances).log_softmax(1)
    torch.testing.assert_close(learner.run_backbone(weights, task.query_x).log_softmax(1), expected)


def test_cavia_shares_all_weights() -> None:
    learner, data = cavia(), glyphs()
    data.connect(learner.training_batches(), learner.evaluation_batches())
    task = Episode(*(tensor[0] for tensor in data.draw("train", torch.arange(1))))
    first, *_, last = [weights for weights, _ in learner.adapt(learner.meta_parameters(), task)]
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert changed == {"context"}
    assert not first["context"].any()


@pytest.mark.parametrize("example", ["cavia", "proto_maml"])
def test_the_examples_are_short(example: str) -> None:
    assert len(Path(__file__).parent.joinpath(f"examples/{example}.py").read_text().splitlines()) < 40
