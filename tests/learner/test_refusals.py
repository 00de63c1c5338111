"""What a learner refuses in Python, and what holds over accumulated batches."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms import IMAML, MAML, FineTuning, GradientCombination, PrototypicalNetworks, Reptile
from lightning_meta.backbones import MLP
from lightning_meta.data import EpisodeDataModule, SinusoidEpisodes
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, Adam, InnerLoop, LayerRates, MetaSGD
from lightning_meta.learner import MetaLearner
from tests.helpers import glyph_network as network
from tests.helpers import glyphs, sgd, trainer


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_accumulated_batches_equal_one(reduction: Any, tmp_path: Path) -> None:
    weights = []
    for tasks, batches in ((8, 1), (4, 2)):
        learner = MAML(network(), InnerLoop(SGD(0.4)), outer_reduction=reduction, optimizer=sgd)
        run = trainer(tmp_path, accumulate_grad_batches=batches, precision="64-true")
        run.fit(learner, glyphs(meta_batch_size=tasks))
        weights.append(dict(learner.state_dict()))
    torch.testing.assert_close(*weights, rtol=1e-9, atol=1e-11)


class Wide(nn.Sequential):
    def __init__(self, last: nn.Module) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 3), last)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("learner", "data", "said"),
    [
        (lambda: MAML(MLP(1)), SinusoidEpisodes(), "model.loss does not fit .* cross_entropy|model.loss .*mse_loss"),
        (lambda: MAML(network(), loss=functional.mse_loss), glyphs(), "set it to torch.nn.functional.cross_entropy"),
        (lambda: MAML(network()), glyphs(train_queries=0), "MAML learns from queries"),
        (lambda: MAML(Wide(Pair())), glyphs(), "gives tuple, expected a tensor"),
        (lambda: MAML(Wide(nn.Identity()).requires_grad_(False)), glyphs(), "no parameter that requires a gradient"),
        (lambda: MAML(network(), InnerLoop(evaluation_batch_size=0)), glyphs(), "evaluation_batch_size is 0"),
    ],
)
def test_what_does_not_go_together_is_refused(learner: Any, data: EpisodeDataModule, said: str, tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).fit(learner(), data)


def test_carried_moments_are_not_accumulated(tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match="accumulate_grad_batches is 2"):
        trainer(tmp_path, accumulate_grad_batches=2).fit(Reptile(network(), InnerLoop(Adam())), glyphs())


@pytest.mark.slow
def test_a_schedule_keeps_its_length(tmp_path: Path) -> None:
    learner = Reptile(network(), InnerLoop(SGD(0.1)))
    first = trainer(tmp_path)
    first.fit(learner, glyphs())
    first.save_checkpoint(tmp_path / "two.ckpt")
    again = Reptile(network(), InnerLoop(SGD(0.1)))
    with pytest.raises(MetaLearningError, match="max_steps is 4, but the checkpoint's .* 2"):
        trainer(tmp_path, max_steps=4).fit(again, glyphs(), ckpt_path=tmp_path / "two.ckpt", weights_only=True)


@pytest.mark.slow
def test_what_a_checkpoint_cannot_hold_must_be_given_again(tmp_path: Path) -> None:
    def smoothed(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
        return functional.cross_entropy(outputs, targets, reduction=reduction, label_smoothing=0.1)

    run = trainer(tmp_path)
    run.fit(MAML(network(), loss=smoothed), glyphs())
    run.save_checkpoint(tmp_path / "one.ckpt")
    with pytest.raises(MetaLearningError, match="its own loss"):
        MAML.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True, backbone=network())
    loaded = MAML.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True, backbone=network(), loss=smoothed)
    assert loaded.loss is smoothed


class Counting(nn.Module):
    """Keeps a mean of what it has seen, as running statistics do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.mean()
        return x


class Branching(nn.Module):
    """Decides by a value."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


def test_a_backbone_that_remembers_is_refused(tmp_path: Path) -> None:
    backbone = nn.Sequential(Counting(), network())
    with pytest.raises(MetaLearningError, match="changes 0.seen whenever it runs"):
        trainer(tmp_path).fit(MAML(backbone), glyphs())
    assert backbone[0].seen == 0


def test_a_backbone_that_cannot_be_vectorised_is_named_and_runs_in_a_loop(tmp_path: Path) -> None:
    backbone = nn.Sequential(nn.Sequential(nn.Identity(), Branching()), network())
    with pytest.raises(
        MetaLearningError,
        match="model.backbone, 0.1 .Branching.: .*cannot be vectorised over tasks. Set model.task_chunk to 1",
    ):
        trainer(tmp_path).fit(MAML(backbone), glyphs())
    learner = MAML(backbone, task_chunk=1)
    run = trainer(tmp_path, max_steps=1)
    with pytest.warns(UserWarning, match="cannot be traced, so it runs uncompiled"):
        run.fit(learner, glyphs())
    run.test(learner, glyphs(test_tasks=2), verbose=False)
    assert learner.scores.intervals["query_accuracy"].tasks == 2


class Wrong(torch.autograd.Function):
    """A square whose derivative is forgotten as soon as tasks are vectorised, as those of some norms of PyTorch are."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> Any:
        return x.detach() * x, in_dims[0]


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Wrong.apply(x)


def test_a_gradient_that_vectorising_makes_wrong_is_refused(tmp_path: Path) -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), Square(), nn.Linear(4, 3))
    with pytest.raises(MetaLearningError, match="wrong meta-gradient when tasks are vectorised.*Square"):
        trainer(tmp_path).fit(MAML(backbone), glyphs())
    trainer(tmp_path).fit(MAML(backbone, task_chunk=1), glyphs())


def test_the_trial_sees_some_of_every_class(tmp_path: Path) -> None:
    """A class without support has no prototype, and its gradient is not a number."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), Square(), nn.Linear(4, 6))
    with pytest.raises(MetaLearningError, match="wrong meta-gradient when tasks are vectorised.*Square"):
        trainer(tmp_path).fit(PrototypicalNetworks(backbone), glyphs(ways=6, validation_tasks=0, test_tasks=0))


@pytest.mark.parametrize("learner", [Reptile, GradientCombination, IMAML, FineTuning])
def test_rules_that_would_learn_nothing_are_refused(learner: Any) -> None:
    with pytest.raises(MetaLearningError, match="MetaSGD, which learns parameters of its own, but .* no gradient"):
        learner(network(), inner=InnerLoop(MetaSGD()))


def test_rates_for_too_few_steps_are_refused() -> None:
    with pytest.raises(MetaLearningError, match="optimizer.steps is 1, but a task takes up to 10 inner steps"):
        MAML(network(), InnerLoop(LayerRates(steps=1)))


def test_the_trial_leaves_everything_as_it_was(tmp_path: Path) -> None:
    def weighted(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
        return functional.cross_entropy(outputs, targets, torch.ones(3), reduction=reduction)  # float32, always

    learner = MAML(network(), loss=weighted)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    state = torch.get_rng_state()
    learner.trainer = trainer(tmp_path)
    learner.trainer.datamodule = glyphs()  # type: ignore[attr-defined]
    learner.trainer.datamodule.setup("fit")  # type: ignore[attr-defined]
    learner.setup("fit")
    torch.testing.assert_close(learner.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("chunk", [1, 2, "auto"])
def test_a_task_that_diverges_is_counted(chunk: int | Literal["auto"], tmp_path: Path) -> None:
    learner: MetaLearner = MAML(network(), InnerLoop(SGD(float("nan")), evaluation_steps=1), task_chunk=chunk)
    trainer(tmp_path).test(learner, glyphs(test_tasks=3), verbose=False)
    for name in ("query_loss", "query_accuracy", "query_nontransductive_accuracy"):
        assert learner.scores.intervals[name].diverged.tolist() == [0, 3], name


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")  # without validation, as for any metric
def test_an_accuracy_is_not_waited_for_where_targets_are_real(tmp_path: Path) -> None:
    """As the command line's default would; Lightning itself stops at the first validation only."""
    watch = ModelCheckpoint(tmp_path, monitor="val_accuracy")
    run = trainer(tmp_path, callbacks=[watch], enable_checkpointing=True, limit_val_batches=1)
    said = "checkpoint.monitor is val_accuracy, but these data have real targets, .*: watch val_loss, with mode min"
    with pytest.raises(MetaLearningError, match=said):
        run.fit(MAML(MLP(1), loss=functional.mse_loss), SinusoidEpisodes())
    assert run.global_step == 0
    run.limit_val_batches = 0  # which needs none
    run.fit(MAML(MLP(1), loss=functional.mse_loss), SinusoidEpisodes())
    assert run.global_step == 2
