"""Baselines that train on all classes at once: their loss by hand, what they make of a new task, what they refuse."""

import importlib
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_meta.algorithms import FineTuning, NearestNeighbour
from lightning_meta.backbones import MLP
from lightning_meta.data import EpisodeDataModule, SinusoidEpisodes, TasksetEpisodes
from lightning_meta.episode import Episode, InnerBatches
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner import MetaLearner
from tests.helpers import PATHS, RATE, glyph_network, glyphs, gradient, image_episode, network, tasks_of, trainer

CLASSES = 7
INNER = InnerLoop(SGD(RATE), steps=0, evaluation_steps=2)


def numbered(episode: Episode) -> Episode:
    """Three of seven classes in every task."""
    return episode._replace(classes=torch.stack([torch.randperm(CLASSES)[:3] for _ in episode.task_ids]))


@pytest.mark.usefixtures("float64")
class TestGradients:
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("algorithm", [FineTuning, NearestNeighbour])
    def test_the_loss_is_that_of_a_classifier_of_all_classes(self, algorithm: Any, path: str) -> None:
        """On support and queries alike, in one batch of each task."""
        torch.manual_seed(1)
        episode = numbered(image_episode())
        learner = algorithm(network())
        learner.classify_among(CLASSES)
        ours = gradient(learner, episode, **PATHS[path])
        model = nn.Sequential(*list(learner.backbone)[:-1], learner.classifier)
        losses = []
        for task in tasks_of(episode):
            labels = [int(task.classes[label]) for label in [*task.support_y, *task.query_y]]
            outputs = model(torch.cat([task.support_x, task.query_x]))
            losses.append(functional.cross_entropy(outputs, torch.tensor(labels)))
        torch.stack(losses).mean().backward()
        torch.testing.assert_close(ours.losses, torch.stack(losses).detach())
        theirs = dict(learner.named_parameters())
        assert ours.grads.keys() == theirs.keys()
        for name, grad in ours.grads.items():
            expected = torch.zeros_like(grad) if theirs[name].grad is None else theirs[name].grad
            torch.testing.assert_close(grad, expected, rtol=0, atol=1e-12)
        unused = [name for name, parameter in theirs.items() if parameter.grad is None]
        assert unused == ["backbone.13.weight", "backbone.13.bias"]

    @pytest.mark.parametrize("vectorised", [True, False])
    def test_fine_tuning_trains_the_network_with_a_new_last_layer(self, vectorised: bool) -> None:
        torch.manual_seed(2)
        learner = FineTuning(network(), INNER)
        learner.task_map.vectorised = vectorised
        task = tasks_of(numbered(image_episode(steps=2)))[0]
        found = learner.predictions(learner.meta_parameters(), task, {})
        model = network()
        nn.init.zeros_(model[-1].weight)
        nn.init.zeros_(model[-1].bias)
        assert all(part[0].count_nonzero() == 0 for part in found)
        for step in range(3):
            expected = functional_call(model, dict(model.named_parameters()), (task.query_x,))
            torch.testing.assert_close(found.query[step], expected.detach(), rtol=1e-9, atol=1e-12)
            inner = torch.optim.SGD(model.parameters(), lr=RATE)
            inner.zero_grad()
            functional.cross_entropy(model(task.support_x), task.support_y).backward()
            inner.step()


def test_before_the_first_step_fine_tuning_guesses(tmp_path: Path) -> None:
    """Its outputs are all alike, so that one class of the three is right."""
    learner = FineTuning(glyph_network(), INNER)
    trainer(tmp_path).test(learner, glyphs(test_tasks=4, queries=2), verbose=False)
    for name in ("query_accuracy", "query_nontransductive_accuracy", "support_accuracy"):
        mean = learner.scores.intervals[name].mean
        assert mean.shape == (3,)
        torch.testing.assert_close(mean[0], torch.tensor(1 / 3, dtype=torch.float64))
    torch.testing.assert_close(learner.scores.intervals["query_loss"].mean[0].item(), math.log(3), rtol=1e-6, atol=0)
    assert learner.scores.intervals["support_accuracy"].mean[2] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("rotations", ["none", "classes", "tasks"])
@pytest.mark.parametrize("algorithm", [FineTuning, NearestNeighbour])
def test_joint_training_learns(algorithm: Any, rotations: Any, tmp_path: Path) -> None:
    """Without queries in training; far below the loss of guessing."""
    data = glyphs(train_queries=0, train_shots=2, meta_batch_size=16, rotations=rotations, train_classes=4)
    torch.manual_seed(0)
    backbone = MLP(3, inputs=784, hidden=[32])
    learner = algorithm(backbone, optimizer=sgd_fast, task_chunk=16)
    losses: list[Tensor] = []
    gradient_of = learner.task_map.meta_gradient

    def recorded(episode: Episode, done: float) -> Any:
        result = gradient_of(episode, done)
        losses.append(result.losses.mean())
        return result

    learner.task_map.meta_gradient = recorded
    run = trainer(tmp_path, max_steps=60)
    run.fit(learner, data)
    guessing = math.log(data.train_class_count)
    assert losses[0] > 0.8 * guessing
    assert losses[-1] < 0.35 * guessing
    run.test(learner, data, verbose=False)
    assert learner.scores.intervals["query_accuracy"].mean[-1] > 0.4  # new classes: a third is guessing


def sgd_fast(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


def sgd_still(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.0)


def tasksets() -> TasksetEpisodes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports of gym and pkg_resources
        data = importlib.import_module("learn2learn.data")
    labels = torch.arange(5).repeat_interleave(6)
    dataset = data.MetaDataset(TensorDataset(torch.randn(30, 1, 28, 28), labels))
    steps = [data.transforms.FusedNWaysKShots(dataset, n=3, k=4), data.transforms.LoadData(dataset)]
    tasks = data.Taskset(dataset, [*steps, data.transforms.RemapLabels(dataset)], num_tasks=-1)
    return TasksetEpisodes(train=tasks, ways=3, shots=1, queries=1, validation_tasks=0, test_tasks=0)


@pytest.mark.parametrize(
    ("learner", "data", "said"),
    [
        (
            lambda: FineTuning(MLP(1), loss=functional.mse_loss),
            SinusoidEpisodes,
            "data.class_path is SinusoidEpisodes, whose tasks do not say which classes .* such as OmniglotEpisodes",
        ),
        (lambda: NearestNeighbour(glyph_network()), tasksets, "data.class_path is TasksetEpisodes, whose tasks"),
    ],
)
def test_data_without_classes_are_refused(learner: Any, data: Any, said: str, tmp_path: Path) -> None:
    made: MetaLearner = learner()
    source: EpisodeDataModule = data()
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).fit(made, source)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of eight training classes."""
    path: Path = tmp_path_factory.mktemp("joint") / "eight.ckpt"
    run = trainer(path.parent, max_steps=1)
    run.fit(FineTuning(glyph_network(), INNER, optimizer=sgd_still), glyphs(train_queries=0))
    run.save_checkpoint(path)
    return path


class TestClassesOfACheckpoint:
    def test_data_with_other_training_classes_can_be_tested(self, checkpoint: Path, tmp_path: Path) -> None:
        """And none of the classifier's classes has to be among them."""
        learner = FineTuning(glyph_network(), INNER)
        data = glyphs(train_classes=5, test_tasks=4)
        trainer(tmp_path).test(learner, data, ckpt_path=checkpoint, verbose=False)
        weight = torch.load(checkpoint, weights_only=True)["state_dict"]["classifier.weight"]
        assert learner.classifier is not None
        assert torch.equal(learner.classifier.weight, weight)
        assert len(weight) == 8

    def test_the_rest_is_loaded_in_python(self, checkpoint: Path) -> None:
        learner = FineTuning.load_from_checkpoint(checkpoint, backbone=glyph_network())
        assert learner.classifier is not None
        assert learner.classifier.out_features == 8

    @pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")  # the data module goes on where it was
    def test_training_goes_on_with_the_same_classes_alone(self, checkpoint: Path, tmp_path: Path) -> None:
        run = trainer(tmp_path, max_steps=2)
        said = "the classifier tells 5 training classes apart, but the checkpoint or data has 8: give data and ch"
        with pytest.raises(MetaLearningError, match=said):
            run.fit(FineTuning(glyph_network(), INNER), glyphs(train_queries=0, train_classes=5), ckpt_path=checkpoint)
        learner = FineTuning(glyph_network(), INNER, optimizer=sgd_still)
        trainer(tmp_path, max_steps=2).fit(learner, glyphs(train_queries=0), ckpt_path=checkpoint)
        assert learner.meta_steps == 2
        assert learner.classifier is not None
        weight = torch.load(checkpoint, weights_only=True)["state_dict"]["classifier.weight"]
        assert torch.equal(learner.classifier.weight, weight)

    def test_a_second_fit_goes_on_with_the_same_classifier(self, checkpoint: Path, tmp_path: Path) -> None:
        learner = FineTuning.load_from_checkpoint(checkpoint, backbone=glyph_network(), optimizer=sgd_still)
        before = learner.classifier.weight.clone()
        trainer(tmp_path, max_steps=1).fit(learner, glyphs(train_queries=0))
        assert torch.equal(learner.classifier.weight, before)
        said = "the classifier tells 8 training classes apart, but the checkpoint or data has 5"
        with pytest.raises(MetaLearningError, match=said):
            trainer(tmp_path).fit(learner, glyphs(train_queries=0, train_classes=5))

    def test_a_learner_of_other_classes_can_test_it(self, checkpoint: Path, tmp_path: Path) -> None:
        learner = FineTuning(glyph_network(), INNER)
        learner.classify_among(5)
        trainer(tmp_path).test(learner, glyphs(test_tasks=4), ckpt_path=checkpoint, verbose=False)
        assert learner.classifier is not None
        assert learner.classifier.out_features == 8


@pytest.mark.filterwarnings("ignore:.*but have no `val_dataloader`", "ignore:.*does not have many workers")
def test_a_loader_that_does_not_say_how_many_classes_it_has(tmp_path: Path) -> None:
    learner = FineTuning(glyph_network(), INNER, compile=False)
    data = glyphs(train_queries=0)
    data.setup("fit")
    data.connect(InnerBatches(), InnerBatches())
    loader = DataLoader([data.draw("train", torch.arange(4))], batch_size=None)  # type: ignore[arg-type]
    with pytest.raises(MetaLearningError, match="FineTuning trains on data that do not say how many classes they have"):
        trainer(tmp_path).fit(learner, loader)
    learner.classify_among(8)
    trainer(tmp_path, max_steps=1, log_every_n_steps=1).fit(learner, loader)
    assert learner.meta_steps == 1
