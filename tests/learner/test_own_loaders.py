"""Loaders of a user's own, without a data module: what the checks before a fit do is done at the first meta-step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from lightning_meta.algorithms import ANIL, IMAML, MAML, PrototypicalNetworks
from lightning_meta.data import GlyphEpisodes
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner import MetaLearner
from tests.helpers import PATHS, RATE, glyphs, gradient, image_episode, sgd, tasks_of, trainer
from tests.learner.test_randomness import FEATURES, STEPS, Halving, network, written_out
from tests.learner.test_refusals import Square
from tests.learner.test_refused_randomness import Own

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")  # these loaders only train
LOOP = InnerLoop(SGD(RATE), steps=STEPS, evaluation_steps=STEPS)


def loader(data: GlyphEpisodes) -> DataLoader[Episode]:
    """Batches of episodes, as a loop of one's own gives them."""
    batches = [data.draw("train", torch.arange(4 * batch, 4 * batch + 4)) for batch in range(2)]
    order = torch.arange(3).expand(4, STEPS, -1)
    return DataLoader([episode._replace(inner_order=order) for episode in batches], batch_size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_the_first_meta_step_finds_whether_a_network_draws(share: float, tmp_path: Path) -> None:
    learner = ANIL(network(nn.Dropout(share), 784), LOOP, compile=False, task_chunk=4)
    assert learner.task_map.draws is None
    trainer(tmp_path).fit(learner, loader(glyphs()))
    assert learner.task_map.draws is (share > 0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("path", PATHS)
def test_without_a_check_every_inner_step_draws_its_own(path: str) -> None:
    learner, episode = ANIL(network(Halving()), LOOP), image_episode(steps=STEPS)
    rows = [len(episode.support_y[0])] * STEPS + [len(episode.query_y[0])]
    torch.manual_seed(3)
    draws: list[list[Tensor]] = []
    for tasks in episode.chunks(PATHS[path]["chunk"]):
        passes = [torch.rand(tasks.tasks, count, FEATURES) for count in rows]
        draws += [list(of_task) for of_task in zip(*passes, strict=True)]
    each = [
        written_out(learner.backbone, lambda name: name.startswith("4."), task, of_task)  # type: ignore[arg-type]
        for task, of_task in zip(tasks_of(episode), draws, strict=True)
    ]
    expected = {f"backbone.{name}": sum(grads[name] for grads in each) / len(each) for name in each[0]}
    torch.manual_seed(3)
    found = gradient(learner, episode, **PATHS[path]).grads
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "part", "said"),
    [
        (MAML, Own(), "draws from a torch.Generator of its own"),
        (IMAML, nn.Dropout(0.5), "but IMAML differentiates the minimum of one inner loss"),
        (MAML, nn.Sequential(nn.Linear(5, 5), Square()), "gets a wrong meta-gradient when tasks are vectorised"),
    ],
)
def test_what_a_fit_with_a_data_module_refuses_is_refused(method: Any, part: Any, said: str, tmp_path: Path) -> None:
    run = trainer(tmp_path)
    with pytest.raises(MetaLearningError, match=said):
        run.fit(method(network(part, 784), LOOP, compile=False, task_chunk=4), loader(glyphs()))
    assert run.global_step == 0


def test_the_check_leaves_the_weights_that_a_data_module_gives(tmp_path: Path) -> None:
    weights = []
    for own in (True, False):
        learner = MAML(network(nn.Identity(), 784), LOOP, optimizer=sgd, compile=False, task_chunk=4)
        trainer(tmp_path).fit(learner, loader(glyphs()) if own else glyphs())
        weights.append(dict(learner.state_dict()))
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-7)


class Sequence(nn.Module):
    """Two recurrent layers over the lines of a picture, with dropout between them."""

    def __init__(self, share: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.head = nn.LSTM(28, 4, 2, dropout=share, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x.squeeze(1))[0][:, -1])


@pytest.mark.filterwarnings("ignore:.*enable_nested_tensor")
@pytest.mark.parametrize("method", [MAML, PrototypicalNetworks])
def test_dropout_between_recurrent_layers_draws_for_every_task(method: type[MetaLearner], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"compile": False, "task_chunk": 2} | ({"inner": LOOP} if method is MAML else {})
    learner = method(Sequence(0.5), **settings)
    trainer(tmp_path, max_steps=1).fit(learner, glyphs())
    assert learner.task_map.draws
    episode = glyphs().draw("train", torch.zeros(2).long())
    episode = episode._replace(inner_order=torch.arange(3).expand(2, learner.inner.steps, -1))
    for chunk in (1, 2):
        one, other = gradient(learner.train(), episode, chunk=chunk).losses
        assert one != other, chunk
    one, other = gradient(learner.eval(), episode, chunk=2).losses
    torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("float64")
def test_dropout_between_recurrent_layers_is_pytorchs() -> None:
    """Which is that of ``torch.nn.functional``, of the outputs of the first layer."""
    model = Sequence(0.5)
    x, weights = torch.randn(5, 1, 28, 28), dict(model.named_parameters())
    learner = PrototypicalNetworks(model)
    torch.manual_seed(1)
    found = learner.run_backbone(weights, x)
    torch.manual_seed(1)
    first, second = nn.LSTM(28, 4, batch_first=True), nn.LSTM(4, 4, batch_first=True)
    for layer, single in enumerate((first, second)):
        for name, value in single.named_parameters():
            value.data = getattr(model.layers, name.replace("l0", f"l{layer}")).data
    torch.manual_seed(1)
    hidden = functional.dropout(first(x.squeeze(1))[0].transpose(0, 1), 0.5).transpose(0, 1)
    torch.testing.assert_close(found, model.head(second(hidden)[0][:, -1]), rtol=1e-10, atol=1e-12)
