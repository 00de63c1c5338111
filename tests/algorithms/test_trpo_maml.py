"""MAML by trust regions: Hessian products against finite differences, the line search, and the meta-step."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_meta.algorithms import TRPOMAML, PolicyGradientMAML
from lightning_meta.algorithms.trpo_maml import Recorded
from lightning_meta.backbones import GaussianPolicy
from lightning_meta.data import NavigationEpisodes
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.mapping import Compiled
from lightning_meta.params import Params, flatten, map_params
from lightning_meta.solvers.trust_region import Outcome, TrustRegion
from tests.algorithms import reinforcement
from tests.helpers import tasks_of, trainer

RATE = 0.1


def learner(steps: int = 2, **settings: Any) -> TRPOMAML:
    return TRPOMAML(reinforcement.policy(), inner=InnerLoop(SGD(RATE), steps, evaluation_steps=2), **settings)


def recorded(ours: TRPOMAML, steps: int = 2) -> tuple[Params, Recorded]:
    params = ours.meta_parameters()
    return params, ours._record(params, reinforcement.episode(steps=steps))


def moved(params: Params, direction: Params, distance: float) -> Params:
    return map_params(lambda p, d: p + distance * d, params, direction)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_hessian_products_equal_finite_differences_of_the_gradient(steps: int, compiled: bool) -> None:
    ours = learner(steps)
    params, fixed = recorded(ours, steps)
    product = Compiled(ours._product_sum) if compiled else ours._product_sum

    def kl_gradient(params: Params) -> Params:
        return torch.func.grad(lambda params: ours._values(params, fixed)[:, 1].sum())(params)

    assert flatten(kl_gradient(params)).abs().max() < 1e-12
    for seed in range(2):
        torch.manual_seed(seed)
        vector = map_params(torch.randn_like, params)
        ahead, behind = (kl_gradient(moved(params, vector, distance)) for distance in (1e-5, -1e-5))
        expected = (flatten(ahead) - flatten(behind)) / 2e-5
        torch.testing.assert_close(flatten(product(params, fixed, vector)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_surrogate_at_the_old_policy_has_the_gradient_of_reinforce(steps: int) -> None:
    ours = learner(steps)
    params, fixed = recorded(ours, steps)
    values = ours._values(params, fixed)
    torch.testing.assert_close(values, torch.zeros(3, 2), rtol=0, atol=1e-12)
    plain = PolicyGradientMAML(ours.backbone, inner=ours.inner)
    episode = reinforcement.episode(steps=steps)
    expected = [
        torch.func.grad(lambda params: plain.outer_loss(params, task, {}, torch.zeros(()))[0])(params)  # noqa: B023
        for task in tasks_of(episode)
    ]
    found = flatten(ours._gradient_sum(params, fixed))
    torch.testing.assert_close(found, torch.stack([flatten(grads) for grads in expected]).sum(0), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_surrogate_and_divergence_are_what_they_say() -> None:
    """At other meta-parameters, against the two policies' densities at the recorded actions, row by row."""
    ours = learner()
    params, fixed = recorded(ours)
    torch.manual_seed(0)
    other = moved(params, map_params(torch.randn_like, params), 0.02)
    values = ours._values(other, fixed)
    assert fixed.inner[0].mask[0].mean() < 1
    for number in range(3):
        task = Episode(*(tensor[number] for tensor in fixed.task))
        samples = [type(s)(*(tensor[number] for tensor in s)) for s in (*fixed.inner, fixed.outer)]
        steps = iter(samples)
        fast = dict(ours.adapted_params(other))
        for _ in task.inner_order:  # on the recorded trajectories, though this policy would have made others
            batch = next(steps)
            grads = torch.func.grad(lambda fast: ours.policy_loss(fast, batch))(fast)  # noqa: B023
            fast = {name: weight - RATE * grads[name] for name, weight in fast.items()}
        outer, surrogate, divergence, count = next(steps), 0.0, 0.0, 0
        outputs = ours.outputs(fast, outer)
        for row, t in outer.mask.nonzero().tolist():
            (mean, log_std), (old_mean, old_log_std) = outputs[row, t].chunk(2), fixed.outputs[number, row, t].chunk(2)
            new = torch.distributions.MultivariateNormal(mean, torch.diag(log_std.exp() ** 2))
            old = torch.distributions.MultivariateNormal(old_mean, torch.diag(old_log_std.exp() ** 2))
            action = outer.actions[row, t]
            surrogate -= float((new.log_prob(action) - old.log_prob(action)).exp() * outer.advantages[row, t])
            divergence += float(torch.distributions.kl_divergence(old, new))
            count += 1
        assert values[number].tolist() == pytest.approx([surrogate / count, divergence / count], abs=1e-9)
    assert values[:, 1].min() > 1e-4


def search(outcomes: list[tuple[float, float]], **settings: Any) -> tuple[float, Outcome, list[float]]:
    """The step of a one-dimensional region of Hessian 2 and gradient 1, where lengths lead to these outcomes."""
    tried: list[float] = []

    def evaluate(step: Tensor) -> Outcome:
        tried.append(float(step))
        return Outcome(*map(torch.tensor, outcomes[len(tried) - 1]))

    region = TrustRegion(max_kl=0.01, damping=0.0, line_search_steps=3, line_search_ratio=0.5, **settings)
    before = Outcome(torch.tensor(1.0), torch.tensor(0.0))
    step, outcome = region.step(torch.ones(1), lambda vector: 2 * vector, evaluate, before)
    return float(step), outcome, tried


@pytest.mark.parametrize(
    ("outcomes", "accepted"),
    [
        ([(0.9, 0.01)], 0),
        ([(0.9, 0.02), (0.9, 0.005)], 1),  # beyond the bound
        ([(1.1, 0.001), (1.0, 0.001), (0.99, 0.001)], 2),  # no improvement
        ([(float("nan"), 0.001), (0.9, float("nan")), (0.9, 0.001)], 2),
        ([(0.5, 0.02), (1.1, 0.001), (float("inf"), 0.0)], None),
    ],
)
def test_the_line_search_takes_the_longest_step_that_improves_within_the_bound(
    outcomes: list[tuple[float, float]], accepted: int | None
) -> None:
    step, outcome, tried = search(outcomes)
    assert tried == pytest.approx([0.1 * 0.5**k for k in range(len(outcomes))])  # 1/2 * 2 * 0.1 ** 2 = max_kl
    if accepted is None:
        assert step == 0
        assert (outcome.surrogate, outcome.kl) == (1, 0)
    else:
        assert step == pytest.approx(0.1 * 0.5**accepted)
        assert (float(outcome.surrogate), float(outcome.kl)) == pytest.approx(outcomes[accepted])


def test_damping_stands_in_where_the_divergence_does_not_tell() -> None:
    region = TrustRegion(max_kl=0.01, damping=0.5)
    before, better = (Outcome(torch.tensor(value), torch.tensor(0.0)) for value in (1.0, 0.0))
    step, _ = region.step(torch.ones(1), torch.zeros_like, lambda step: better, before)
    assert float(step) == pytest.approx(0.2)  # 1/2 * 0.5 * 0.2 ** 2 = max_kl


def test_without_a_gradient_nothing_is_changed() -> None:
    region, before = TrustRegion(), Outcome(torch.tensor(0.0), torch.tensor(0.0))
    step, outcome = region.step(torch.zeros(2), lambda vector: vector, lambda step: before, before)
    assert step.tolist() == [0, 0]
    assert outcome is before


def fitted(tmp_path: Path, steps: int = 2, run_settings: dict[str, Any] | None = None, **settings: Any) -> TRPOMAML:
    """A run in float64, of few conjugate gradients: each blows up the rounding of the one before."""
    ours = learner(1, **{"region": TrustRegion(conjugate_gradient_steps=3)} | settings)
    run = trainer(tmp_path, max_steps=steps, precision="64-true", **run_settings or {})
    run.fit(ours, NavigationEpisodes(trajectories=4, horizon=6, meta_batch_size=4))
    assert run.global_step == steps
    assert ours.meta_steps == steps
    return ours


def test_a_meta_step_improves_the_surrogate_within_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    step_of = TRPOMAML.trust_region_step

    def watched(self: TRPOMAML, episode: Episode) -> tuple[Params, Outcome]:
        params = map_params(torch.clone, self.meta_parameters())
        fixed = self._record(params, episode)
        step, outcome = step_of(self, episode)
        after = self._values(map_params(torch.sub, params, step), fixed).mean(0)
        torch.testing.assert_close(after, torch.stack(outcome))
        seen.append((params, step, after))
        return step, outcome

    monkeypatch.setattr(TRPOMAML, "trust_region_step", watched)
    ours = fitted(tmp_path, 3, region=TrustRegion(max_kl=0.02))
    for _, _, (surrogate, divergence) in seen:
        assert surrogate < 0
        assert 0.005 < divergence <= 0.02
    for (params, step, _), (following, _, _) in zip(seen, [*seen[1:], (ours.meta_parameters(), {}, 0)], strict=True):
        for name, tensor in following.items():
            assert torch.equal(tensor, params[name] - step[name])


@pytest.mark.slow
def test_all_paths_train_the_same_weights(tmp_path: Path) -> None:
    expected = dict(fitted(tmp_path, task_chunk=1).state_dict())
    for settings in ({"task_chunk": 3}, {"task_chunk": "auto"}, {"task_chunk": 4, "compile": True}):
        found = dict(fitted(tmp_path, **settings).state_dict())
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_no_step_is_lost_when_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = dict(fitted(tmp_path, task_chunk=4).state_dict())
    product = TRPOMAML._product_sum

    def with_little_memory(self: TRPOMAML, params: Params, tasks: Recorded, vector: Params) -> Params:
        if len(tasks.outputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return product(self, params, tasks, vector)

    monkeypatch.setattr(TRPOMAML, "_product_sum", with_little_memory)
    with pytest.warns(UserWarning, match="repeated with 2, which stays"):
        found = dict(fitted(tmp_path, task_chunk=4).state_dict())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_divergence_stops_before_anything_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRPOMAML, "_gradient_sum", lambda self, params, fixed: map_params(lambda p: p / 0, params))
    with pytest.raises(MetaLearningError, match="meta-step 0: the meta-gradient is not finite") as refused:
        fitted(tmp_path)
    assert re.search(r"Lower model.inner.optimizer.lr or model.region.max_kl$", str(refused.value))
    assert "outer" not in str(refused.value) and "clip" not in str(refused.value)  # of which a trust region has none


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_mixed_precision_is_refused(precision: Any, tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match=f"trainer.precision is {precision}.*set it to 32-true"):
        trainer(tmp_path, precision=precision).fit(learner(), NavigationEpisodes(trajectories=2, horizon=3))


@pytest.mark.parametrize("settings", [{"accumulate_grad_batches": 2}, {"gradient_clip_val": 1.0}])
def test_what_lightning_does_to_gradients_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="manual optimization"):
        fitted(tmp_path, run_settings=settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_kl": 0.0}, "model.region.max_kl is 0.0, expected a number above 0"),
        ({"conjugate_gradient_steps": 0}, "model.region.conjugate_gradient_steps is 0, expected a number at least 1"),
        ({"damping": -1.0}, "model.region.damping is -1.0"),
        ({"line_search_steps": 0}, "model.region.line_search_steps is 0"),
        ({"line_search_ratio": 1.0}, "model.region.line_search_ratio is 1.0, expected a number between 0 and 1"),
    ],
)
def test_numbers_that_make_no_region_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(MetaLearningError, match=said):
        TRPOMAML(GaussianPolicy(2), region=TrustRegion(**settings))
