"""The learned optimizer in float64 against finite differences and a written-out loop, over unrolls and restarts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms import MAML, LearnedOptimizer
from lightning_meta.backbones import MLP
from lightning_meta.data import QuadraticEpisodes
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop, LSTMOptimizer
from lightning_meta.inner.lstm import log_and_sign
from lightning_meta.mapping import Compiled, MetaGradient, chunk_gradient, meta_gradient
from lightning_meta.params import map_params
from tests.helpers import PATHS, image_episode, tasks_of, torch_lstm, trainer

RULE = LSTMOptimizer(6, 0.3)


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Tanh(), nn.Linear(2, 3))


def learner(steps: int = 3, **settings: Any) -> LearnedOptimizer:
    torch.manual_seed(0)
    made = LearnedOptimizer(network(), InnerLoop(RULE, steps, 4), optimization_steps=2 * steps, **settings)
    for parameter in made.inner_parameters.values():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made


def batch(steps: int = 3) -> Episode:
    torch.manual_seed(1)
    order = torch.stack([torch.randperm(6)[:4] for _ in range(3 * steps)]).view(3, steps, 4)
    return image_episode()._replace(inner_order=order)


def gradient(learner: LearnedOptimizer, episode: Episode, carry: Any, path: str) -> MetaGradient:
    run, options = chunk_gradient(learner.outer_loss, True), dict(PATHS[path])
    if options.pop("compiled", False):
        run = Compiled(run)
    return meta_gradient(
        run, learner.meta_parameters(), episode, carry, torch.zeros(()), carry_per_task=True, **options
    )


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("path", PATHS)
def test_the_whole_gradient_equals_finite_differences(path: str) -> None:
    model, episode = learner(second_order=True), batch()
    carry = model.training_carry(episode)
    grads = gradient(model, episode, carry, path).grads
    direction = map_params(torch.randn_like, grads)

    def loss_at(distance: float) -> Tensor:
        for name, parameter in model.inner_parameters.items():
            parameter.data += distance * direction[f"inner_parameters.{name}"]
        return gradient(model, episode, carry, "vectorised").losses.mean()

    high, low = loss_at(1e-5), loss_at(-2e-5)
    ours = sum((grads[name] * direction[name]).sum() for name in grads)
    torch.testing.assert_close(ours, (high - low) / 2e-5, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("path", PATHS)
def test_without_second_derivatives_it_equals_a_written_out_loop(path: str) -> None:
    model, episode = learner(), batch()
    carry = model.training_carry(episode)
    result = gradient(model, episode, carry, path)
    meta = {name.replace("/", "."): value for name, value in model.inner_parameters.items()}
    lstm, linear = torch_lstm(meta), nn.Linear(6, 1)
    linear.weight.data, linear.bias.data = meta["linear.weight"].data.T, meta["linear.bias"].data
    losses = []
    for task in range(3):
        weights = [carry["weights"][name][task] for name in ("1.weight", "1.bias", "3.weight", "3.bias")]
        x, y, order = episode.support_x[task], episode.support_y[task], episode.inner_order[task]
        memory, total = None, torch.zeros(())
        for rows, next_rows in zip(order, [*order[1:], order[0]], strict=True):
            at = [weight.detach().requires_grad_() for weight in weights]
            grads = torch.autograd.grad(loss(at, x[rows], y[rows]), at)
            flat = torch.cat([grad.flatten() for grad in grads])
            outputs, memory = lstm(log_and_sign(flat, 5.0)[None], memory)
            pieces = (0.3 * linear(outputs[0])[:, 0]).split([weight.numel() for weight in weights])
            weights = [weight + piece.view_as(weight) for weight, piece in zip(weights, pieces, strict=True)]
            total = total + loss(weights, x[next_rows], y[next_rows])
        losses.append(total)
        torch.testing.assert_close([value[task] for value in result.carry["weights"].values()], weights)
        for layer in range(2):
            for own, theirs in zip(result.carry["state"][layer], memory or (), strict=True):
                torch.testing.assert_close(own[task], theirs[layer], rtol=0, atol=1e-12)
    torch.testing.assert_close(result.losses, torch.stack(losses), rtol=0, atol=1e-12)
    torch.stack(losses).mean().backward()
    ours = {name.removeprefix("inner_parameters."): grad for name, grad in result.grads.items()}
    assert ours.keys() == dict(model.inner_parameters).keys()
    torch.testing.assert_close(ours["linear/weight"].T, linear.weight.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours["linear/bias"], linear.bias.grad, rtol=1e-9, atol=1e-12)
    for layer in range(2):
        theirs = torch.cat([getattr(lstm, f"weight_{kind}_l{layer}").grad for kind in ("ih", "hh")], 1).T
        torch.testing.assert_close(ours[f"lstm/{layer}/weight"], theirs, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(ours[f"lstm/{layer}/bias"], getattr(lstm, f"bias_ih_l{layer}").grad)


def loss(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    hidden = functional.linear(x.flatten(1), weights[0], weights[1]).tanh()
    return functional.cross_entropy(functional.linear(hidden, weights[2], weights[3]), y)


# Problems over unrolls, restarts and splits.


def quadratics(seed: int = 3) -> QuadraticEpisodes:
    return QuadraticEpisodes(dimensions=4, meta_batch_size=2, validation_tasks=3, test_tasks=3, seed=seed)


def optimizer_of_quadratics(unrolls: int = 3, rate: float = 0.01, **settings: Any) -> LearnedOptimizer:
    torch.manual_seed(0)
    loop = InnerLoop(RULE, 2, evaluation_steps=4, reduction="sum")
    rule_optimizer = torch.optim.SGD if rate == 0 else torch.optim.Adam
    return LearnedOptimizer(
        nn.Linear(4, 1, bias=False), loop, loss=functional.mse_loss, optimization_steps=2 * unrolls,
        optimizer=lambda parameters: rule_optimizer(parameters, lr=rate),
        **{"task_chunk": 2, "compile": False} | settings,
    )  # fmt: skip


def test_a_problem_goes_on_over_its_unrolls_and_then_ends(tmp_path: Path) -> None:
    model, data = optimizer_of_quadratics(rate=0.0), quadratics()
    for meta_steps, tasks in ((3, [0, 1]), (2, [0, 1]), (5, [2, 3])):
        trainer(tmp_path, max_steps=meta_steps, precision="64-true").fit(model, data)
        episode = data.draw("train", torch.tensor(tasks))
        under_way = model.training_carry(episode)
        start = model.problems("train", episode.task_ids)
        for task, one in enumerate(tasks_of(episode)):
            order = one.inner_order[: 2 * (meta_steps - tasks[0] // 2 * 3)]
            x, y = one.support_x.double(), one.support_y.double()
            seen = one._replace(support_x=x, support_y=y, inner_order=order)
            fast = map_params(lambda value: value[task], start["weights"])  # noqa: B023
            own = {"weights": fast, "state": RULE.init(fast)}
            *_, (weights, _) = model.adapt(model.meta_parameters(), seen, own["state"], start=own["weights"])
            torch.testing.assert_close(weights["weight"], under_way["weights"]["weight"][task], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")  # the data module goes on where it was
@pytest.mark.parametrize("settings", [{"compile": True}, {"task_chunk": 1}])
def test_a_run_goes_on_exactly_from_the_middle_of_a_problem(settings: dict[str, Any], tmp_path: Path) -> None:
    whole = optimizer_of_quadratics(**settings)
    trainer(tmp_path, max_steps=4).fit(whole, quadratics())
    first = trainer(tmp_path, max_steps=2)
    first.fit(optimizer_of_quadratics(**settings), quadratics())
    first.save_checkpoint(tmp_path / "middle.ckpt")
    resumed = optimizer_of_quadratics(**settings)
    again = trainer(tmp_path, max_steps=4)
    data = quadratics()
    again.fit(resumed, data, ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)
    episode = data.draw("train", torch.tensor([2, 3]))  # of the second problem
    under_way, start = whole.training_carry(episode), whole.problems("train", episode.task_ids)
    assert not torch.equal(under_way["weights"]["weight"], start["weights"]["weight"])
    torch.testing.assert_close(resumed.training_carry(episode), under_way, rtol=0, atol=0)


def test_weights_are_drawn_by_seed_split_and_number_alone() -> None:
    model, episode = learner(), torch.tensor([5, 2])
    torch.manual_seed(4)
    state = torch.get_rng_state()
    drawn = model.problems("train", episode)["weights"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    again = model.problems("train", episode.flip(0))["weights"]
    torch.testing.assert_close(map_params(lambda value: value.flip(0), again), drawn, rtol=0, atol=0)
    own = dict(model.backbone.named_parameters())
    others = [drawn["1.weight"][0], own["1.weight"].detach(), model.problems("test", episode)["weights"]["1.weight"][0]]
    model.seed = 1
    others.append(model.problems("train", episode)["weights"]["1.weight"][0])
    assert torch.stack(others).flatten(1).unique(dim=0).shape[0] == 4
    bound = 1 / 8  # of torch.nn.Linear with 64 inputs
    assert 0.9 * bound < drawn["1.weight"].abs().max() <= bound


def test_the_networks_own_weights_are_not_trained(tmp_path: Path) -> None:
    model = optimizer_of_quadratics()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer(tmp_path).fit(model, quadratics())
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("inner_parameters")}


@pytest.mark.usefixtures("float64")
def test_an_evaluation_starts_from_new_weights_and_shows_every_step() -> None:
    model, episode = learner(), batch(steps=5)
    predictions = model.all_predictions(episode)
    assert predictions.support.shape == (3, 6, 6, 3)
    problems = model.problems("test", episode.task_ids)
    for task, one in enumerate(tasks_of(episode)):
        fast = map_params(lambda value: value[task], problems["weights"])  # noqa: B023
        start = {"weights": fast, "state": RULE.init(fast)}
        steps = model.adapt(model.meta_parameters(), one, start["state"], start=start["weights"])
        for step, (weights, _) in enumerate(steps):
            expected = model.run_backbone(weights, one.query_x)
            torch.testing.assert_close(predictions.query[task, step], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(predictions.query_nontransductive, predictions.query, rtol=0, atol=0)


def test_validation_and_test_have_weights_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[int]]] = []
    problems = LearnedOptimizer.problems

    def noted(self: LearnedOptimizer, split: Any, numbers: Tensor) -> Any:
        asked.append((split, numbers.tolist()))
        return problems(self, split, numbers)

    monkeypatch.setattr(LearnedOptimizer, "problems", noted)
    model, data = optimizer_of_quadratics(task_chunk=8), quadratics(seed=6)
    run = trainer(tmp_path, max_steps=3, limit_val_batches=1.0, val_check_interval=3, num_sanity_val_steps=0)
    run.fit(model, data)
    assert model.seed == 6
    run.test(model, datamodule=data, verbose=False)
    assert [entry for entry in asked if len(entry[1]) > 1] == [
        ("train", [0, 1]), ("validation", [0, 1, 2]), ("test", [0, 1, 2])
    ]  # fmt: skip


def test_a_trained_rule_moves_other_networks(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    model = optimizer_of_quadratics()
    run.fit(model, quadratics())
    run.save_checkpoint(tmp_path / "rule.ckpt")
    rule = LSTMOptimizer(6, 0.3, checkpoint=str(tmp_path / "rule.ckpt"))
    trained = {name: value for name, value in model.state_dict().items() if name.startswith("inner_parameters")}
    for algorithm in (LearnedOptimizer, MAML):
        for hidden, activation in (([40], nn.Sigmoid), ([5, 7], nn.ReLU)):
            other = algorithm(MLP(3, 64, hidden, activation), InnerLoop(rule, 1, evaluation_steps=2))
            held = {name: value for name, value in other.state_dict().items() if name in trained}
            torch.testing.assert_close(held, trained, rtol=0, atol=0)
            assert other.all_predictions(image_episode(steps=2)).query.isfinite().all()
    loaded = LearnedOptimizer.load_from_checkpoint(
        tmp_path / "rule.ckpt", weights_only=True, backbone=nn.Linear(4, 1, bias=False),
        optimizer=lambda parameters: torch.optim.Adam(parameters),
    )  # fmt: skip
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)


class Gain(nn.Module):
    """Parameters that nothing can draw again."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LearnedOptimizer(network(), InnerLoop(SGD(0.1), 20)), "optimizer is SGD, which has nothing to learn"),
        (lambda: LearnedOptimizer(network(), InnerLoop(RULE, 30)), "optimization_steps is 100, .* the 30 steps"),
        (lambda: LearnedOptimizer(network(), InnerLoop(RULE, 0)), "optimization_steps is 100, .* at least 1"),
        (lambda: LearnedOptimizer(nn.Sequential(network(), Gain()), InnerLoop(RULE, 20)), "holds Gain, .*reset_param"),
    ],
)
def test_what_cannot_be_trained_is_refused(make: Any, said: str) -> None:
    with pytest.raises(MetaLearningError, match=said):
        make()
