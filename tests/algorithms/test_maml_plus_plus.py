"""MAML++: each switch alone against a written-out loop, all together against finite differences, variants of a run."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_meta.algorithms import FOMAML, MAML, MAMLPlusPlus
from lightning_meta.algorithms.maml_plus_plus import Variant
from lightning_meta.backbones import BatchNorm
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, Adam, InnerLoop, LayerRates, MetaSGD
from lightning_meta.mapping import Compiled, MetaGradient, chunk_gradient, meta_gradient
from lightning_meta.params import Params, map_params
from tests.helpers import PATHS, RATE, glyphs, gradient, image_episode, network, query_loss, sgd, tasks_of, trainer

OFF: dict[str, Any] = {"multi_step_loss": 0.0, "layer_rates": False, "step_norms": False, "first_order": 0.0}
STEPS = 3
INNER = InnerLoop(SGD(RATE), STEPS, evaluation_steps=STEPS)


def small() -> nn.Module:
    """With two norms; a deeper network takes long to trace."""
    torch.manual_seed(0)
    blocks = [nn.Conv2d(1, 3, 3, 2), BatchNorm(3), nn.ReLU(), nn.Conv2d(3, 4, 3, 2), BatchNorm(4), nn.ReLU()]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(4, 3))


NORMS = {f"{place}.{key}" for place in (1, 4) for key in ("weight", "bias")}


def at(learner: MAMLPlusPlus, episode: Episode, progress: float, path: str = "vectorised") -> MetaGradient:
    """The meta-gradient where this part of a run is done."""
    run = chunk_gradient(partial(learner.outer_loss, variant=learner.variant_at(progress)))
    options = dict(PATHS[path])
    run = Compiled(run) if options.pop("compiled", False) else run
    return meta_gradient(run, learner.meta_parameters(), episode, {}, torch.tensor(progress), **options)


def descend(model: nn.Module, fast: Params, norms: Params, rate: float, task: Episode, order: bool = True) -> Params:
    """One inner step, by torch's own autograd."""
    loss = functional.cross_entropy(functional_call(model, fast | norms, (task.support_x,)), task.support_y)
    grads = torch.autograd.grad(loss, list(fast.values()), create_graph=order)
    return {name: fast[name] - rate * grad for name, grad in zip(fast, grads, strict=True)}


def source_weights(steps: int, progress: float, part: float) -> list[float]:
    """As in the paper's code, get_per_step_loss_importance_vector, with its epochs as parts of the run."""
    weights = [1 / steps] * steps
    decay, least = 1 / steps / part, 0.03 / steps
    for place in range(steps - 1):
        weights[place] = max(weights[place] - progress * decay, least)
    weights[-1] = min(weights[-1] + progress * (steps - 1) * decay, 1 - (steps - 1) * least)
    return weights


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("progress", [0.0, 0.2, 0.39, 0.4])
def test_step_weights_are_the_sources(steps: int, progress: float) -> None:
    learner = MAMLPlusPlus(network(), InnerLoop(SGD(RATE), steps, evaluation_steps=1), multi_step_loss=0.4)
    weights = learner.step_weights(torch.tensor(progress))
    torch.testing.assert_close(weights, torch.tensor(source_weights(steps, progress, 0.4)))
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    assert weights.min() > 0


def test_defaults(tmp_path: Path) -> None:
    learner = MAMLPlusPlus(network())
    learner.trainer = trainer(tmp_path, max_steps=7)
    schedule = learner.configure_optimizers()["lr_scheduler"]["scheduler"]
    assert isinstance(schedule, CosineAnnealingLR)
    assert schedule.T_max == 7
    assert learner.inner == InnerLoop(LayerRates(0.01, 5), 5, evaluation_steps=5)
    assert learner.variant_at(0.0) == Variant(multi_step=True, second_order=True)
    assert learner.variant_at(0.1) == Variant(multi_step=False, second_order=True)


@pytest.mark.usefixtures("float64")
class TestGradients:
    @pytest.mark.parametrize("path", ["vectorised", "looped"])
    def test_everything_off_is_maml(self, path: str) -> None:
        torch.manual_seed(1)
        episode = image_episode(steps=STEPS)
        ours = at(MAMLPlusPlus(small(), INNER, **OFF), episode, 0.0, path)
        torch.testing.assert_close(ours, gradient(MAML(small(), INNER), episode), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("path", ["vectorised", "looped"])
    def test_first_order_at_first_then_second(self, path: str) -> None:
        torch.manual_seed(2)
        episode = image_episode(steps=STEPS)
        learner = MAMLPlusPlus(small(), INNER, **OFF | {"first_order": 0.5})
        for progress, algorithm in ((0.0, FOMAML), (0.49, FOMAML), (0.5, MAML), (1.0, MAML)):
            expected = gradient(algorithm(small(), INNER), episode)
            torch.testing.assert_close(at(learner, episode, progress, path), expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("path", ["vectorised", "looped"])
    def test_rates_by_layer_and_step(self, path: str) -> None:
        torch.manual_seed(3)
        episode = image_episode(steps=STEPS)
        learner = MAMLPlusPlus(small(), INNER, **OFF | {"layer_rates": True})
        theirs = MAML(small(), InnerLoop(LayerRates(RATE, STEPS), STEPS, evaluation_steps=STEPS))
        torch.testing.assert_close(at(learner, episode, 0.0, path), gradient(theirs, episode), rtol=0, atol=1e-12)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("progress", "path"), [(0.0, "chunked"), *((0.1, path) for path in PATHS), (0.4, "looped")]
    )
    def test_multi_step_loss(self, progress: float, path: str) -> None:
        torch.manual_seed(4)
        episode = image_episode(steps=STEPS)
        ours = at(MAMLPlusPlus(small(), INNER, **OFF | {"multi_step_loss": 0.4}), episode, progress, path)
        shares = source_weights(STEPS, progress, 0.4) if progress < 0.4 else [0.0, 0.0, 1.0]
        model = small()
        losses = []
        for task in tasks_of(episode):
            fast = dict(model.named_parameters())
            loss = torch.zeros(())
            for share in shares:
                fast = descend(model, fast, {}, RATE, task)
                loss = loss + share * query_loss(model, fast, task)
            losses.append(loss)
        torch.stack(losses).mean().backward()
        torch.testing.assert_close(ours.losses, torch.stack(losses).detach())
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(ours.grads[f"backbone.{name}"], parameter.grad, rtol=0, atol=1e-12)

    @pytest.mark.slow
    @pytest.mark.parametrize(("path", "first_order"), [*((path, 0.0) for path in PATHS), ("looped", 1.0)])
    def test_norms_by_step(self, path: str, first_order: float) -> None:
        """Row i of the norms serves the weights after i inner steps, in support and query passes alike."""
        torch.manual_seed(5)
        episode = image_episode(steps=STEPS)
        learner = MAMLPlusPlus(small(), INNER, **OFF | {"step_norms": True, "first_order": first_order})
        for values in learner.norms.values():
            values.data += 0.3 * torch.randn_like(values)
        ours = at(learner, episode, 0.0, path)
        model = small()
        rows = {
            name.replace("/", "."): values.detach().clone().requires_grad_() for name, values in learner.norms.items()
        }
        weights = {name: parameter for name, parameter in model.named_parameters() if name not in rows}
        assert rows.keys() == NORMS
        losses = []
        for task in tasks_of(episode):
            fast = dict(weights)
            for step in range(STEPS):
                norms = {name: values[step] for name, values in rows.items()}
                fast = descend(model, fast, norms, RATE, task, order=first_order == 0)
            losses.append(query_loss(model, fast | {name: values[STEPS] for name, values in rows.items()}, task))
        torch.stack(losses).mean().backward()
        torch.testing.assert_close(ours.losses, torch.stack(losses).detach())
        expected = {f"norms.{name.replace('.', '/')}": values.grad for name, values in rows.items()}
        expected |= {f"backbone.{name}": parameter.grad for name, parameter in weights.items()}
        assert ours.grads.keys() == expected.keys()
        for name, grad in expected.items():
            torch.testing.assert_close(ours.grads[name], grad, rtol=0, atol=1e-12)

    @pytest.mark.slow
    @pytest.mark.parametrize("path", PATHS)
    def test_everything_on_equals_finite_differences(self, path: str) -> None:
        torch.manual_seed(6)
        episode = image_episode(steps=STEPS)
        backbone = nn.Sequential(nn.Conv2d(1, 4, 3), BatchNorm(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3))
        learner = MAMLPlusPlus(backbone, INNER, multi_step_loss=0.5)
        grads = at(learner, episode, 0.2, path).grads
        params = learner.meta_parameters()
        direction = map_params(torch.randn_like, params)

        def loss_at(distance: float) -> Tensor:
            moved = map_params(lambda value, way: value + distance * way, params, direction)
            outer_loss = partial(learner.outer_loss, variant=learner.variant_at(0.2))
            losses = [outer_loss(moved, task, {}, torch.tensor(0.2))[0] for task in tasks_of(episode)]
            return torch.stack(losses).mean()

        slope = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5
        ours = sum((grads[name] * direction[name]).sum() for name in grads)
        torch.testing.assert_close(ours, slope, rtol=1e-6, atol=1e-9)

    def test_predictions_take_the_norms_of_their_step(self) -> None:
        torch.manual_seed(7)
        learner = MAMLPlusPlus(small(), InnerLoop(SGD(RATE), STEPS, evaluation_steps=2), **OFF | {"step_norms": True})
        for values in learner.norms.values():
            values.data += 0.3 * torch.randn_like(values)
        task = tasks_of(image_episode(steps=2))[0]
        outputs = learner.predictions(learner.meta_parameters(), task, {}).query
        model = small()
        rows = {name.replace("/", "."): values.detach() for name, values in learner.norms.items()}
        fast = {name: parameter for name, parameter in model.named_parameters() if name not in rows}
        assert len(outputs) == 3
        for step, found in enumerate(outputs):
            norms = {name: values[step] for name, values in rows.items()}
            torch.testing.assert_close(found, functional_call(model, fast | norms, (task.query_x,)))
            fast = descend(model, fast, norms, RATE, task)


def test_the_backbones_own_norms_are_not_trained() -> None:
    for settings in ({}, {"inner": InnerLoop(MetaSGD(RATE), STEPS, evaluation_steps=1), "layer_rates": False}):
        learner = MAMLPlusPlus(small(), **{"inner": INNER} | settings)
        rest = {"0.weight", "0.bias", "3.weight", "3.bias", "7.weight", "7.bias"}
        expected = {f"backbone.{name}" for name in rest} | {f"norms.{name.replace('.', '/')}" for name in NORMS}
        expected |= {f"inner_parameters.{name.replace('.', '/')}" for name in rest}
        assert learner.meta_parameters().keys() == expected
        assert all(values.shape[0] == STEPS + 1 for values in learner.norms.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_are_weighed_in_single_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(8)
    learner, episode = MAMLPlusPlus(small(), INNER), image_episode(steps=STEPS)
    exact = at(learner, episode, 0.0)
    with torch.autocast("cpu", dtype):
        half = at(learner, episode, 0.0)
    assert half.losses.dtype == torch.float32
    assert (half.losses != half.losses.to(dtype)).any()  # not rounded, as a product of half precision would be
    torch.testing.assert_close(half.losses, exact.losses, rtol=0.02, atol=0)


class Recorded(MAMLPlusPlus):
    """Notes the variant of each meta-step, and compares its gradient with one that is computed afresh for it."""

    def training_step(self, episode: Episode, batch_idx: int) -> Tensor:
        progress = self.trainer.global_step / self.trainer.max_steps
        result = self.task_map.meta_gradient(episode, progress)
        torch.testing.assert_close(result, at(self, episode, progress), rtol=0, atol=1e-12)
        self.variants.append(self.variant_at(progress))
        return super().training_step(episode, batch_idx)


def normed() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 4), BatchNorm(4), nn.Tanh(), nn.Linear(4, 3))


def recorded(compiled: bool) -> Recorded:
    torch.manual_seed(0)
    backbone = normed()
    settings = {"multi_step_loss": 0.25, "first_order": 0.5, "task_chunk": 4, "compile": compiled, "optimizer": sgd}
    learner = Recorded(backbone, InnerLoop(SGD(0.4), 2, evaluation_steps=2), **settings)
    learner.variants = []
    return learner.double()  # before Lightning does, which would restore a checkpoint in float32 first


class SaveHalf(Callback):
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            trainer.save_checkpoint(f"{trainer.default_root_dir}/half.ckpt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")  # the data module goes on where it was
@pytest.mark.parametrize("compiled", [True, False])
def test_variants_change_during_a_run_and_after_a_restart(compiled: bool, tmp_path: Path) -> None:
    """Of four meta-steps: scores of all steps in the first, first order in two."""
    variants = [Variant(True, False), Variant(False, False), Variant(False, True), Variant(False, True)]
    whole, again = recorded(compiled), recorded(compiled)
    settings = {"max_steps": 4, "precision": "64-true"}
    trainer(tmp_path, callbacks=[SaveHalf()], **settings).fit(whole, glyphs())
    assert whole.variants == variants
    path = tmp_path / "half.ckpt"
    trainer(tmp_path, **settings).fit(again, glyphs(), ckpt_path=path, weights_only=True)
    assert again.variants == variants[2:]
    torch.testing.assert_close(dict(again.state_dict()), dict(whole.state_dict()), rtol=0, atol=1e-12)
    loaded = Recorded.load_from_checkpoint(path, weights_only=True, backbone=normed())
    assert loaded.inner == whole.inner


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"inner": InnerLoop(SGD(RATE), 2, evaluation_steps=3)},
            "model.inner.evaluation_steps is 3, but layer_rates and step_norms are learned for the 2 .* set "
            "evaluation_steps to 2 or less, raise steps, or set model.layer_rates and model.step_norms to false",
        ),
        (
            {"inner": InnerLoop(SGD(RATE), 2, evaluation_steps=3), "layer_rates": False},
            "evaluation_steps is 3, but step_norms are .* or set model.step_norms to false",
        ),
        ({"inner": InnerLoop(Adam(), 2, evaluation_steps=2)}, "layer_rates is true, but model.inner.optimizer is Adam"),
        ({"multi_step_loss": 1.5}, "model.multi_step_loss is 1.5, expected a part of the run from 0 to 1"),
        ({"multi_step_loss": float("nan")}, "model.multi_step_loss is nan, expected a part of the run from 0 to 1"),
        ({"first_order": -0.1}, "model.first_order is -0.1, expected a part of the run from 0 to 1"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(MetaLearningError, match=said):
        MAMLPlusPlus(small(), **{"inner": INNER} | settings)


def test_without_anything_learned_by_step_any_rule_and_length_goes() -> None:
    inner = InnerLoop(Adam(), 2, evaluation_steps=9)
    assert MAMLPlusPlus(small(), inner, layer_rates=False, step_norms=False).inner == inner
