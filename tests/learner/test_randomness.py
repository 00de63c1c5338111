"""Dropout and other random layers: who draws what, that a run repeats and resumes, that evaluation draws nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lightning_meta import algorithms
from lightning_meta.algorithms import ANIL, MAML, PrototypicalNetworks
from lightning_meta.episode import Episode
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params
from tests.helpers import PATHS, RATE, gradient, image_episode, sgd, tasks_of, trainer
from tests.helpers import glyphs as three_ways

FEATURES, STEPS = 5, 2
LOOP = InnerLoop(SGD(RATE), steps=STEPS, evaluation_steps=STEPS)


class Halving(nn.Module):
    """A dropout of probability .5 whose masks a test can draw, too, or hand over."""

    given: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        drawn = torch.rand_like(x) if self.given is None else self.given
        return 2 * x * (drawn < 0.5)


def network(part: nn.Module, inputs: int = 64, seed: int = 0) -> nn.Sequential:
    """Two layers for three classes, with ``part`` between them."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, FEATURES), nn.Tanh(), part, nn.Linear(FEATURES, 3))


def glyphs(**changes: Any) -> Any:
    return three_ways(test_tasks=3, **changes)


def written_out(model: nn.Sequential, adapted: Callable[[str], bool], task: Episode, draws: list[Tensor]) -> Params:
    """The gradient of one task by autograd alone, the masks of each pass given.

    Args:
        model: with a `Halving` at place 3.
        adapted: whether the inner loop adapts the parameter of a name.
        task: one task.
        draws: of each inner step, and of the queries.
    """

    def loss(weights: Params, x: Tensor, y: Tensor, drawn: Tensor) -> Tensor:
        model[3].given = drawn  # type: ignore[assignment]
        try:
            return functional.cross_entropy(functional_call(model, weights, (x,)), y)
        finally:
            del model[3].given

    phi = {name: value.detach().requires_grad_() for name, value in model.named_parameters()}
    weights = dict(phi)
    fast = [name for name in phi if adapted(name)]
    for drawn in draws[:-1]:
        inner = loss(weights, task.support_x, task.support_y, drawn)
        grads = torch.autograd.grad(inner, [weights[name] for name in fast], create_graph=True)
        weights |= {name: weights[name] - RATE * grad for name, grad in zip(fast, grads, strict=True)}
    outer = loss(weights, task.query_x, task.query_y, draws[-1])
    return dict(zip(phi, torch.autograd.grad(outer, list(phi.values())), strict=True))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("method", "head_only"), [(MAML, False), (ANIL, True)])
def test_every_task_and_every_step_draws_its_own(method: type[MetaLearner], head_only: bool, path: str) -> None:
    learner, episode = method(network(Halving()), LOOP), image_episode(steps=STEPS)
    learner.task_map.draws = True  # as the check of a fit finds
    rows = [len(task.support_y) for task in tasks_of(episode)][:1] * STEPS + [len(episode.query_y[0])]
    torch.manual_seed(3)
    draws: list[list[Tensor]] = []  # of each task, in the order in which they are asked for
    for tasks in episode.chunks(PATHS[path]["chunk"]):
        passes = [torch.rand(tasks.tasks, count, FEATURES) for count in rows]
        draws += [list(of_task) for of_task in zip(*passes, strict=True)]
    last = "4."

    def adapted(name: str) -> bool:
        return not head_only or name.startswith(last)

    each = [
        written_out(learner.backbone, adapted, task, of_task)  # type: ignore[arg-type]
        for task, of_task in zip(tasks_of(episode), draws, strict=True)
    ]
    expected = {f"backbone.{name}": sum(grads[name] for grads in each) / len(each) for name in each[0]}
    torch.manual_seed(3)
    found = gradient(learner, episode, **PATHS[path]).grads
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settings", [{"task_chunk": 1}, {"task_chunk": 2}, {"task_chunk": 4, "compile": True}])
def test_tasks_and_meta_steps_differ_and_a_seed_repeats_them(settings: dict[str, Any], tmp_path: Path) -> None:
    def losses(seed: int) -> list[Tensor]:
        """Of three meta-steps that learn nothing, on one task four times over."""
        learner = PrototypicalNetworks(
            network(nn.Dropout(0.5), 784), **{"compile": False} | settings, optimizer=lambda p: torch.optim.SGD(p, lr=0)
        )
        seen: list[Tensor] = []
        mapped = learner.task_map.meta_gradient

        def of_one_task(episode: Episode, done: float) -> Any:
            result = mapped(Episode(*(tensor[:1].expand_as(tensor) for tensor in first)), done)
            seen.append(result.losses)
            return result

        data = glyphs(seed=seed)
        first = glyphs(seed=0).draw("train", torch.arange(4))._replace(inner_order=torch.zeros(4, 0, 3).long())
        learner.task_map.meta_gradient = of_one_task  # type: ignore[method-assign]
        trainer(tmp_path, max_steps=3).fit(learner, data)
        return seen

    found = losses(0)
    assert len(torch.cat(found).unique()) == 3 * 4
    torch.rand(7)  # whatever else has been drawn
    assert torch.equal(torch.stack(losses(0)), torch.stack(found))
    assert not torch.isin(torch.cat(losses(1)), torch.cat(found)).any()


@pytest.mark.filterwarnings("ignore:You.re resuming")  # the stream of tasks goes on by itself
@pytest.mark.parametrize(
    ("method", "settings"),
    [(MAML, {"compile": False}), (MAML, {"task_chunk": 1, "compile": False}), (PrototypicalNetworks, {})],
)
def test_a_run_that_is_resumed_draws_the_same(method: Any, settings: Any, tmp_path: Path) -> None:
    def learner() -> MetaLearner:
        torch.manual_seed(len(list(tmp_path.iterdir())))  # the generator is elsewhere in every run
        inner = {} if method is PrototypicalNetworks else {"inner": LOOP}
        return method(network(nn.Dropout(0.5), 784), **inner, **settings, optimizer=sgd)

    whole, first, second = learner(), learner(), learner()
    trainer(tmp_path, max_steps=4).fit(whole, glyphs())
    run = trainer(tmp_path, max_steps=2)
    run.fit(first, glyphs())
    run.save_checkpoint(tmp_path / "two.ckpt")
    trainer(tmp_path, max_steps=4).fit(second, glyphs(), ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    torch.testing.assert_close(dict(second.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{"task_chunk": 1}, {"task_chunk": 2}])
def test_evaluation_and_adaptation_draw_nothing(settings: Any, tmp_path: Path) -> None:
    scores = []
    for share in (0.5, 0.0):
        learner = MAML(network(nn.Dropout(share), 784), LOOP, compile=False, **settings)
        assert learner.training
        run = trainer(tmp_path)
        run.test(learner, glyphs(), verbose=False)
        scores.append(dict(run.callback_metrics))
        learner.train()
        x, y = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
        adapted = learner.adapt_to(x, y)
        scores[-1]["adapted"] = adapted(x)
        scores[-1]["adapted, together"] = learner.adapt_to(x, y, together=True)(x)
        training = learner.all_predictions(glyphs().draw("train", torch.arange(2))._replace(
            inner_order=torch.arange(3).expand(2, STEPS, -1)))  # fmt: skip
        scores[-1]["scores of training"] = training.query
        assert all(part.training for part in learner.modules())
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=0)


class Noise(nn.Module):
    """Of both modes."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Gumbel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.gumbel_softmax(x)


class Bernoulli(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x, 0.5))


class Dropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.5, self.training)


class Connections(nn.Linear):
    """Dropout of weights, which are the same for all tasks in the first inner step."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, functional.dropout(self.weight, 0.5, self.training), self.bias)


class Channels(nn.Dropout2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., None, None])[..., 0, 0]


class Attention(nn.MultiheadAttention):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x[None], x[None], x[None], need_weights=False)[0][0]


class Sampled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.normal(x, 0.1)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Dropout(0.5),
    "in place": lambda: nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Dropout(0.5, inplace=True)),
    "functional": Dropping,
    "channels": lambda: Channels(0.5),
    "alpha": lambda: nn.AlphaDropout(0.5),
    "feature alpha": lambda: nn.FeatureAlphaDropout(0.5),
    "leaky": nn.RReLU,
    "noise": Noise,
    "normal": Sampled,
    "gumbel": Gumbel,
    "bernoulli": Bernoulli,
    "depth": lambda: torchvision.ops.StochasticDepth(0.5, "row"),
    "depth of a batch": lambda: torchvision.ops.StochasticDepth(0.5, "batch"),
    "connections": lambda: Connections(FEATURES, FEATURES),
    "attention": lambda: Attention(FEATURES, 1, dropout=0.5),
}


@pytest.mark.parametrize(
    ("method", "layer"),
    [*((MAML, layer) for layer in LAYERS), *((PrototypicalNetworks, layer) for layer in ("dropout", "noise", "leaky"))],
)
def test_random_layers_are_trained_and_tested(method: Any, layer: str, tmp_path: Path) -> None:
    """The check before a fit compares each with a loop; here tasks of the same data must differ, mapped or not."""
    learner = method(network(LAYERS[layer](), 784), compile=False, task_chunk=2)
    run = trainer(tmp_path, max_steps=1)
    run.fit(learner, glyphs())
    assert learner.task_map.draws
    run.test(learner, glyphs(), verbose=False)
    episode = glyphs().draw("train", torch.zeros(2).long())
    episode = episode._replace(inner_order=torch.arange(3).expand(2, learner.inner.steps, -1))
    for chunk in (1, 2):
        one, other = gradient(learner.train(), episode, chunk=chunk).losses
        assert one != other, chunk


@pytest.mark.parametrize("method", ["FOMAML", "Reptile", "BOIL", "MAMLPlusPlus", "MatchingNetworks", "FineTuning"])
def test_methods_with_and_without_inner_loop_take_dropout(method: str, tmp_path: Path) -> None:
    kind = getattr(algorithms, method)
    inner = {} if method == "MatchingNetworks" else {"inner": LOOP}
    learner = kind(network(nn.Dropout(0.5), 784), **inner, compile=False, task_chunk=2)
    trainer(tmp_path, max_steps=1).fit(learner, glyphs())
    assert learner.task_map.draws


def test_a_graph_follows_the_mode_of_a_module(tmp_path: Path) -> None:
    learner = PrototypicalNetworks(network(nn.Dropout(0.5), 784), task_chunk=4)
    learner.trainer = trainer(tmp_path)
    episode = glyphs().draw("train", torch.zeros(4).long())._replace(inner_order=torch.zeros(4, 0, 3).long())
    random_losses = learner.task_map.meta_gradient(episode, 0.0).losses
    learner.backbone.eval()
    fixed = learner.task_map.meta_gradient(episode, 0.0).losses
    assert len(random_losses.unique()) == 4 and torch.allclose(fixed, fixed[:1].expand(4), rtol=1e-6)
