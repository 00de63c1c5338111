"""Methods that compare features, in float64: formulas written out, learn2learn, brute force."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms import MatchingNetworks, NearestNeighbour, PrototypicalNetworks
from lightning_meta.backbones import MLP, Conv4
from lightning_meta.episode import Episode
from tests.helpers import PATHS, gradient, image_episode, network, tasks_of

pytestmark = pytest.mark.usefixtures("float64")

Compare = Callable[[Tensor, Tensor, Tensor], Tensor]  # features and labels of the support set, features of rows


def features_of(model: nn.Module, x: Tensor) -> Tensor:
    """What the last layer of `network` is given."""
    return nn.Sequential(*list(model)[:-1])(x)


def shuffled(episode: Episode) -> Episode:
    """The same tasks with the rows of support and query set in another order, each task in its own."""
    tasks = torch.arange(episode.tasks)[:, None]
    support = torch.stack([torch.randperm(episode.support_y.shape[1]) for _ in tasks])
    query = torch.stack([torch.randperm(episode.query_y.shape[1]) for _ in tasks])
    return episode._replace(
        support_x=episode.support_x[tasks, support],
        support_y=episode.support_y[tasks, support],
        query_x=episode.query_x[tasks, query],
        query_y=episode.query_y[tasks, query],
    )


def nearest_prototype(support: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """As easyfsl writes it: prototypes by class, minus squared Euclidean distances."""
    prototypes = torch.cat([support[torch.nonzero(labels == label)].mean(0) for label in range(3)])
    return -(torch.cdist(rows, prototypes) ** 2)


def attention(support: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """The paper's equations 1 and 2."""
    outputs = []
    for row in rows:
        weights = torch.stack([functional.cosine_similarity(row, other, dim=0) for other in support]).exp()
        weights = weights / weights.sum()
        outputs.append(torch.stack([weights[labels == label].sum() for label in range(3)]).log())
    return torch.stack(outputs)


def nearest(support: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """Brute force: the class of the one support row with the largest cosine, as one-hot."""
    outputs = torch.zeros(len(rows), 3)
    for place, row in enumerate(rows):
        best = max(range(len(support)), key=lambda k: float(row @ support[k] / row.norm() / support[k].norm()))
        outputs[place, labels[best]] = 1
    return outputs


LEARNED = [(PrototypicalNetworks, nearest_prototype), (MatchingNetworks, attention)]
ALL = [PrototypicalNetworks, MatchingNetworks, NearestNeighbour]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("algorithm", "compare"), LEARNED)
def test_equals_the_formula(algorithm: Any, compare: Compare, path: str, order: str) -> None:
    torch.manual_seed(1)
    episode = image_episode()
    episode = shuffled(episode) if order == "shuffled" else episode
    ours = gradient(algorithm(network()), episode, **PATHS[path])
    model = network()
    losses = []
    for task in tasks_of(episode):
        support, query = features_of(model, task.support_x), features_of(model, task.query_x)
        losses.append(functional.cross_entropy(compare(support, task.support_y, query), task.query_y))
    torch.stack(losses).mean().backward()
    torch.testing.assert_close(ours.losses, torch.stack(losses).detach())
    for name, parameter in list(model.named_parameters())[:-2]:
        torch.testing.assert_close(ours.grads[f"backbone.{name}"], parameter.grad, rtol=0, atol=1e-10)
    for name, _ in list(model.named_parameters())[-2:]:  # the layer that is not used
        assert ours.grads[f"backbone.{name}"].count_nonzero() == 0


def test_prototypes_equal_learn2learn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports of gym and pkg_resources
        classifier = importlib.import_module("learn2learn.nn").PrototypicalClassifier()
    torch.manual_seed(2)
    episode = shuffled(image_episode())
    ours = gradient(PrototypicalNetworks(network()), episode)
    model = network()
    losses = []
    for task in tasks_of(episode):
        classifier.fit_(features_of(model, task.support_x), task.support_y)
        losses.append(functional.cross_entropy(classifier(features_of(model, task.query_x)), task.query_y))
    torch.stack(losses).mean().backward()
    torch.testing.assert_close(ours.losses, torch.stack(losses).detach(), rtol=0, atol=1e-9)
    for name, parameter in list(model.named_parameters())[:-2]:
        torch.testing.assert_close(ours.grads[f"backbone.{name}"], parameter.grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("algorithm", "compare"), LEARNED)
def test_predictions_have_one_step(algorithm: Any, compare: Compare) -> None:
    torch.manual_seed(3)
    task = tasks_of(shuffled(image_episode(queries=3)))[0]
    learner, model = algorithm(network()), network()
    assert learner.inner.evaluation_steps == learner.inner.steps == 0
    found = learner.predictions(learner.meta_parameters(), task, {})
    support = features_of(model, task.support_x)
    alone = [features_of(model, torch.cat([task.support_x, x[None]]))[-1:] for x in task.query_x]
    expected = [
        compare(support, task.support_y, rows)[None]
        for rows in (support, features_of(model, task.query_x), torch.cat(alone))
    ]
    torch.testing.assert_close(list(found), [outputs.detach() for outputs in expected], rtol=1e-9, atol=1e-9)


def test_matching_networks_give_logarithms_of_probabilities() -> None:
    torch.manual_seed(4)
    task = tasks_of(image_episode())[0]
    learner = MatchingNetworks(network())
    outputs = learner.predictions(learner.meta_parameters(), task, {}).query[0]
    torch.testing.assert_close(outputs.exp().sum(-1), torch.ones(6))


@pytest.mark.parametrize("shots", [1, 4])
@pytest.mark.parametrize("pixels", [False, True])
def test_nearest_neighbour_equals_brute_force(pixels: bool, shots: int) -> None:
    torch.manual_seed(5)
    # Of few features that a ReLU makes zero, many would be alike.
    backbone = MLP(3, inputs=64, hidden=[]) if pixels else MLP(3, 64, hidden=[8], activation=nn.Tanh)
    task = tasks_of(shuffled(image_episode(shots=shots, queries=20)))[0]
    learner = NearestNeighbour(backbone)
    found = learner.predictions(learner.meta_parameters(), task, {})
    assert found.query.shape == (1, 60, 3)
    support, query = (x.flatten(1) if pixels else features_of(backbone, x) for x in (task.support_x, task.query_x))
    expected = nearest(support.detach(), task.support_y, query.detach())
    assert torch.equal(found.query[0].argmax(-1), expected.argmax(-1))
    assert torch.equal(found.support[0].argmax(-1), task.support_y)
    torch.testing.assert_close(found.query_nontransductive, found.query)  # without a norm, the two are the same
    assert found.query.abs().max() <= 1 + 1e-12  # cosines


@pytest.mark.parametrize("vectorised", [True, False])
@pytest.mark.parametrize("algorithm", ALL)
def test_a_query_depends_on_others_only_where_they_share_a_batch(algorithm: Any, vectorised: bool) -> None:
    torch.manual_seed(6)
    learner = algorithm(network())
    learner.task_map.vectorised = vectorised
    task = tasks_of(image_episode())[0]
    other = task._replace(query_x=torch.cat([task.query_x[:1] + 1, task.query_x[1:]]))
    before, after = (learner.predictions(learner.meta_parameters(), each, {}) for each in (task, other))
    torch.testing.assert_close(after.query_nontransductive[:, 1:], before.query_nontransductive[:, 1:])
    assert not torch.allclose(after.query_nontransductive[:, 0], before.query_nontransductive[:, 0])
    assert not torch.allclose(after.query[:, 1:], before.query[:, 1:])  # by the batch norm
    torch.testing.assert_close(after.support, before.support)


@pytest.mark.parametrize("algorithm", ALL)
def test_labels_and_outputs_go_together(algorithm: Any) -> None:
    """Other names for the classes give the same outputs, in other columns; other orders of the rows change nothing."""
    torch.manual_seed(7)
    learner = algorithm(network())
    task = tasks_of(image_episode())[0]
    names, order = torch.tensor([2, 0, 1]), torch.randperm(6)
    renamed = task._replace(support_y=names[task.support_y])
    mixed = task._replace(support_x=task.support_x[order], support_y=task.support_y[order])
    outputs, others, same = (
        learner.predictions(learner.meta_parameters(), each, {}).query for each in (task, renamed, mixed)
    )
    torch.testing.assert_close(others[..., names], outputs)
    torch.testing.assert_close(same, outputs)


@pytest.mark.parametrize("algorithm", ALL)
def test_float32_stays_finite_and_differentiable(algorithm: Any) -> None:
    """The value that keeps other classes out of a sum does not overflow."""
    torch.manual_seed(8)
    backbone = Conv4(3, filters=4, image_size=8, head="flatten").float()
    learner = algorithm(backbone).float()
    episode = Episode(*(t.float() if t.is_floating_point() else t for t in image_episode()))
    if algorithm is not NearestNeighbour:
        result = gradient(learner, episode)
        assert all(grad.isfinite().all() and grad.dtype == torch.float32 for grad in result.grads.values())
    outputs = learner.predictions(learner.meta_parameters(), tasks_of(episode)[0], {})
    assert all(part.isfinite().all() and part.dtype == torch.float32 for part in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("algorithm", [PrototypicalNetworks, MatchingNetworks])
def test_mixed_precision_compares_features_as_they_are(algorithm: Any, dtype: torch.dtype) -> None:
    """Whether run as it is, or traced and replayed; half precision would move a distance by far more."""
    torch.manual_seed(0)
    learner = algorithm(network().float()).float()
    episode = Episode(*(t.float() if t.is_floating_point() else t for t in image_episode()))
    with torch.autocast("cpu", dtype):
        support = learner.head.features(learner.adapted_params(learner.meta_parameters()), episode.support_x[0])
        query = learner.head.features(learner.adapted_params(learner.meta_parameters()), episode.query_x[0])
        found = learner.predictions(learner.meta_parameters(), tasks_of(episode)[0], {}).query[0]
    members = (episode.support_y[0] == torch.arange(3)[:, None]).float()
    assert support.dtype == torch.float32
    torch.testing.assert_close(found, learner.compare(support, members, query), rtol=1e-6, atol=1e-6)
    with torch.autocast("cpu", dtype):
        plain, compiled = (gradient(learner, episode, compiled=compiled) for compiled in (False, True))
    for name, grad in plain.grads.items():
        torch.testing.assert_close(compiled.grads[name], grad, rtol=1e-5, atol=1e-7)
