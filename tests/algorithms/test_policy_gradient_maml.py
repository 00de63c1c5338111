"""MAML by policy gradients: the meta-gradient against a written-out loop, and whole runs by the command line."""

import csv
import json
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import pytest
import torch
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor, nn

from lightning_meta.algorithms import MAML, TRPOMAML, PolicyGradientMAML
from lightning_meta.algorithms.policy_learner import negative_return
from lightning_meta.backbones import MLP, GaussianPolicy
from lightning_meta.cli import main
from lightning_meta.data import NavigationEpisodes, SinusoidEpisodes
from lightning_meta.envs import TensorNavigation2D
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.mapping import Compiled, chunk_gradient, meta_gradient
from tests.algorithms import reinforcement
from tests.helpers import tasks_of, trainer

RATE = 0.1
LEARNERS = [PolicyGradientMAML, TRPOMAML]


def learner(steps: int = 2, **settings: Any) -> PolicyGradientMAML:
    return PolicyGradientMAML(reinforcement.policy(), inner=InnerLoop(SGD(RATE), steps, evaluation_steps=2), **settings)


def written_out(task: Episode, discount: float, gae_lambda: float) -> tuple[Tensor, list[Tensor]]:
    """Outer loss of one task and its gradient, by autograd through plain Python."""
    network = reinforcement.policy()
    start = dict(network.named_parameters())
    fast = start

    def act(x: Tensor) -> Tensor:
        return torch.func.functional_call(network, fast, (x,))

    def loss(noise: Tensor, goals: Tensor) -> Tensor:
        trajectories = reinforcement.follow(act, noise, goals)
        weights = reinforcement.advantages(trajectories, discount, gae_lambda)
        return reinforcement.loss(act, trajectories, weights)

    for rows in task.inner_order:
        grads = torch.autograd.grad(
            loss(task.support_x[rows], task.support_y[rows]), list(fast.values()), create_graph=True
        )
        fast = {name: weight - RATE * grad for (name, weight), grad in zip(fast.items(), grads, strict=True)}
    outer = loss(task.query_x, task.query_y)
    return outer.detach(), list(torch.autograd.grad(outer, list(start.values())))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("path", ["vectorised", "looped", "compiled"])
def test_the_meta_gradient_equals_a_written_out_loop(path: str, steps: int) -> None:
    episode, ours = reinforcement.episode(steps=steps), learner(steps, discount=0.9, gae_lambda=0.8)
    gradient = chunk_gradient(ours.outer_loss)
    run = Compiled(gradient) if path == "compiled" else gradient
    result = meta_gradient(
        run, ours.meta_parameters(), episode, {}, torch.zeros(()), chunk=1 if path == "looped" else None
    )
    losses, grads = zip(*(written_out(task, 0.9, 0.8) for task in tasks_of(episode)), strict=True)
    torch.testing.assert_close(result.losses, torch.stack(losses), rtol=0, atol=1e-8)
    for ours_, *theirs in zip(result.grads.values(), *grads, strict=True):
        torch.testing.assert_close(ours_, torch.stack(theirs).mean(0), rtol=0, atol=1e-8)
    assert max(grad.abs().max() for grad in result.grads.values()) > 0.1


@pytest.mark.usefixtures("float64")
def test_what_is_scored_are_returns_after_every_inner_step() -> None:
    episode, ours = reinforcement.episode(steps=2), learner()
    predictions = ours.all_predictions(episode)
    assert predictions.support.shape == (3, 3, 8, 1)
    assert predictions.query.shape == predictions.query_nontransductive.shape == (3, 3, 4, 1)
    scores = ours.scores.score(ours.loss, predictions, episode)
    assert scores.keys() == {"support_loss", "query_loss", "query_nontransductive_loss"}
    task = tasks_of(episode)[0]
    for step, (fast, _) in enumerate(ours.adapt(ours.meta_parameters(), task)):
        act = lambda x: torch.func.functional_call(ours.backbone, fast, (x,))  # noqa: B023, E731
        for part, noise, goals in (("support", task.support_x, task.support_y), ("query", task.query_x, task.query_y)):
            met = reinforcement.follow(act, noise, goals)
            returns = torch.tensor([sum(reward for _, _, reward in steps) for steps in met])
            torch.testing.assert_close(getattr(predictions, part)[0, step, :, 0], returns, rtol=0, atol=1e-8)
            torch.testing.assert_close(scores[f"{part}_loss"][0, step], -returns.mean(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_the_loss_is_minus_the_return(reduction: Any) -> None:
    found = negative_return(torch.tensor([[-1.0], [-5.0]]), torch.zeros(2, 2), reduction=reduction)
    assert found.tolist() == {"none": [1, 5], "mean": 3, "sum": 6}[reduction]


class Discreet(TensorNavigation2D):
    """Its actions are no vector."""

    action_space: ClassVar[Space] = Discrete(4)  # type: ignore[assignment]


class Cube(TensorNavigation2D):
    """It observes and takes three numbers."""

    observation_space: ClassVar[Box] = Box(-1, 1, (3,))
    action_space: ClassVar[Box] = Box(-1, 1, (3,))
    goal_width: ClassVar[int] = 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"discount": 0.0}, "model.discount is 0.0, expected a number above 0 and at most 1"),
        ({"discount": 1.5}, "model.discount is 1.5"),
        ({"gae_lambda": -0.1}, "model.gae_lambda is -0.1, expected a number from 0 to 1"),
        ({"inner": InnerLoop(reduction="sum")}, "model.inner.reduction is sum"),
        ({"environment": Discreet()}, "environment Discreet has the action space Discrete"),
    ],
)
@pytest.mark.parametrize("algorithm", LEARNERS)
def test_wrong_settings_are_refused(algorithm: type[PolicyGradientMAML], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(MetaLearningError, match=said):
        algorithm(GaussianPolicy(2), **settings)


@pytest.mark.parametrize(
    ("backbone", "settings", "said"),
    [
        (GaussianPolicy(2, inputs=3), {}, "cannot take the 2 entries .* Set model.backbone.inputs to 2"),
        (GaussianPolicy(3), {}, r"gives a tensor of shape \(3, 6\) .* TensorNavigation2D takes 2 actions.* outputs 2"),
        (MLP(2, 2), {}, r"gives a tensor of shape \(3, 2\) .*: expected \(3, 4\).* Set model.backbone to GaussianP"),
        (GaussianPolicy(3, inputs=3), {"environment": Cube()}, r"Cube needs noise \(trajectories, horizon, 3\) and go"),
        (GaussianPolicy(2).requires_grad_(False), {}, "no parameter that requires a gradient"),
    ],
)
def test_policies_that_do_not_fit_are_refused(
    backbone: nn.Module, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).fit(PolicyGradientMAML(backbone, **settings), NavigationEpisodes(trajectories=2, horizon=3))


def test_other_data_and_other_learners_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match="set data to NavigationEpisodes"):
        trainer(tmp_path).fit(PolicyGradientMAML(GaussianPolicy(2)), SinusoidEpisodes())
    with pytest.raises(MetaLearningError, match="cannot take inputs of shape"):
        trainer(tmp_path).fit(MAML(GaussianPolicy(2)), NavigationEpisodes(trajectories=2, horizon=3))


def command(root: Path, algorithm: str, steps: int = 2, *more: str) -> list[str]:
    arguments = [f"--model={algorithm}", "--model.backbone=GaussianPolicy", "--model.inner.evaluation_steps=2"]
    arguments += ["--model.task_chunk=1", "--data=NavigationEpisodes", "--data.trajectories=3", "--data.horizon=5"]
    arguments += ["--data.meta_batch_size=2", "--data.validation_tasks=3", "--data.test_tasks=5"]
    arguments += [
        f"--trainer.default_root_dir={root}",
        f"--trainer.max_steps={steps}",
        "--trainer.val_check_interval=1",
    ]
    arguments += ["--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"]
    return [*arguments, "--checkpoint.monitor=val_loss", "--checkpoint.mode=min", *more]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", LEARNERS)
def test_fit_validate_test_predict_and_load(algorithm: type[PolicyGradientMAML], tmp_path: Path) -> None:
    name = algorithm.__name__
    assert main(["fit", *command(tmp_path, name), "--ensemble=2"]) == 0
    run = tmp_path / "experiment" / "version_0"
    checkpoint = run / "checkpoints" / "last.ckpt"
    for verb in ("validate", "test", "predict"):
        assert main([verb, *command(tmp_path, name), f"--ckpt_path={checkpoint}"]) == 0
    entries = json.loads((checkpoint.parent / "results.json").read_text())
    assert {(entry["split"], entry["members"]) for entry in entries} == {("test", 1), ("test", 2), ("validation", 1)}
    for entry in entries:
        assert entry["meta_steps"] in (1, 2)  # the best may be the first
        assert (entry["ways"], entry["shots"], entry["queries"]) == (1, 3, 3)
        metrics = entry["metrics"]
        assert metrics.keys() == {"support_loss", "query_loss", "query_nontransductive_loss"}
        assert metrics["query_loss"] == metrics["query_nontransductive_loss"]
        assert len(metrics["query_loss"]["mean"]) == 3
        assert all(value > 0 for value in metrics["query_loss"]["mean"])
    (file,) = tmp_path.rglob("predictions_0.pt")
    outputs = torch.load(file, weights_only=True)[0]["outputs"]
    assert outputs.shape == (5, 3, 1)
    last = next(entry for entry in entries if entry["checkpoint"] == "last.ckpt" and entry["split"] == "test")
    assert last["metrics"]["query_loss"]["mean"][2] == pytest.approx(float(-outputs.mean()), rel=1e-5)
    assert last["meta_steps"] == 2
    assert (run / "adaptation.png").stat().st_size > 0
    with (run / "metrics.csv").open() as file_:
        logged = set(csv.DictReader(file_).fieldnames or [])
    assert {"train/outer_loss", "train/query_loss/step_0", "train/query_loss/step_1", "val_loss"} <= logged
    assert ("train/kl" in logged) == (algorithm is TRPOMAML)
    loaded = algorithm.load_from_checkpoint(checkpoint, weights_only=True)
    assert loaded.environment == TensorNavigation2D()
    assert loaded.inner.evaluation_steps == 2


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["PolicyGradientMAML", "TRPOMAML"])
def test_an_interrupted_run_ends_where_another_does(algorithm: str, tmp_path: Path) -> None:
    def run(name: str, steps: int, *more: str) -> dict[str, Any]:
        settings = ["--trainer.limit_val_batches=0", "--trainer.deterministic=true", "--model.inner.steps=2", *more]
        assert main(["fit", *command(tmp_path / name, algorithm, steps), *settings]) == 0
        (path,) = (tmp_path / name).rglob("last.ckpt")
        return torch.load(path, weights_only=True)

    whole, first = run("whole", 4), run("first", 2)
    path = next((tmp_path / "first").rglob("last.ckpt"))
    second = run("second", 4, f"--ckpt_path={path}")
    assert whole["global_step"] == second["global_step"] == 4
    assert whole["NavigationEpisodes"]["consumed_tasks"] == 8
    torch.testing.assert_close(dict(second["state_dict"]), dict(whole["state_dict"]), rtol=0, atol=0)
    assert any(not torch.equal(whole["state_dict"][name], value) for name, value in first["state_dict"].items())


def test_joint_training_takes_no_inner_step_and_is_tested_with_some(tmp_path: Path) -> None:
    assert main(["fit", *command(tmp_path, "TRPOMAML", 1), "--model.inner.steps=0"]) == 0
    (results,) = tmp_path.rglob("results.json")
    assert len(json.loads(results.read_text())[0]["metrics"]["query_loss"]["mean"]) == 3


def test_an_environment_of_gymnasium_is_refused() -> None:
    with pytest.raises(MetaLearningError, match="expected a TensorEnvironment, .*set it to TensorNavigation2D"):
        PolicyGradientMAML(GaussianPolicy(2), environment=gymnasium.make("lightning_meta/Navigation2D-v0"))  # type: ignore[arg-type]
