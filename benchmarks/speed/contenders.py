"""What `throughput.py` compares: one meta-step as learn2learn's examples write it, and one of a plain ``vmap``."""

import contextlib
import copy
import importlib
import io
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from lightning_meta.data import TasksetEpisodes
from lightning_meta.data.drawing.images import ImageEpisodes
from lightning_meta.episode import Episode
from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params, map_params

Task = tuple[Tensor, Tensor]
Step = Callable[[], object]

with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
    warnings.simplefilter("ignore")  # it imports gym, which prints that it is unmaintained
    learn2learn: Any = importlib.import_module("learn2learn")


def fixed_tasks(episode: Episode) -> Callable[[], Task]:
    """The tasks of an episode in turn, as learn2learn's own come: the images of a class together."""
    ways = int(episode.support_y.max()) + 1
    support, query = (x.unflatten(1, (ways, -1)) for x in (episode.support_x, episode.query_x))
    rows = torch.cat([support, query], 2).flatten(1, 2)
    labels = torch.arange(ways, device=rows.device).repeat_interleave(rows.shape[1] // ways)
    place = iter(range(10**9))
    return lambda: (rows[next(place) % len(rows)], labels)


def their_benchmark(root: str, ways: int, images: int) -> Callable[[], Task]:
    """Sampler of learn2learn's Omniglot benchmark, with ``images`` of each class in a task."""
    omniglot = torchvision.datasets.Omniglot
    # torchvision asks for the original archives even where their folders are complete.
    with mock.patch.object(omniglot, "download"), mock.patch.object(omniglot, "_check_integrity", return_value=True):
        data = TasksetEpisodes(benchmark="omniglot", root=root, ways=ways, shots=images - 1, queries=1, train_queries=1)
        return data.tasksets["train"].sample  # type: ignore[attr-defined, no-any-return]


def in_memory(data: ImageEpisodes, ways: int, images: int) -> Callable[[], Task]:
    """learn2learn's sampler on images that are in memory already, which its benchmark's are not."""
    classes = data.data.splits["train"]
    spans = zip(data.data.starts[classes].tolist(), data.data.counts[classes].tolist(), strict=True)
    rows = torch.cat([torch.arange(start, start + count) for start, count in spans])
    labels = torch.arange(len(classes)).repeat_interleave(data.data.counts[classes])
    dataset = learn2learn.data.MetaDataset(TensorDataset(data.data.images[rows].cpu(), labels))
    transforms = learn2learn.data.transforms
    steps = [
        transforms.FusedNWaysKShots(dataset, n=ways, k=images),
        transforms.LoadData(dataset),
        transforms.RemapLabels(dataset),
        transforms.ConsecutiveLabels(dataset),
    ]
    tasks = learn2learn.data.Taskset(dataset, task_transforms=steps)

    def sample() -> Task:
        x, y = tasks.sample()
        return x.float().div_(255), y

    return sample


def their_network(backbone: str, ways: int) -> nn.Module:
    """learn2learn's own network."""
    models = learn2learn.vision.models
    if backbone == "omniglot":
        return models.OmniglotCNN(ways)
    if backbone == "mini_imagenet":
        return models.MiniImagenetCNN(ways)
    network = models.ResNet12(ways)
    for part in network.modules():  # its DropBlock would draw at random inside the inner loop
        if hasattr(part, "drop_rate"):
            part.drop_rate = 0.0
    return network


def their_maml(
    network: nn.Module, sample: Callable[[], Task], tasks: int, shots: int, steps: int, rate: float, first_order: bool
) -> Step:
    """The loop of learn2learn's `examples/vision/maml_omniglot.py`."""
    device = next(network.parameters()).device
    maml = learn2learn.algorithms.MAML(network, lr=rate, first_order=first_order)
    optimizer = torch.optim.Adam(maml.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        for _ in range(tasks):
            learner = maml.clone()
            data, labels = sample()
            data, labels = data.to(device), labels.to(device)
            (support_x, support_y), (query_x, query_y) = learn2learn.data.partition_task(data, labels, shots=shots)
            for _ in range(steps):
                learner.adapt(functional.cross_entropy(learner(support_x), support_y))
            functional.cross_entropy(learner(query_x), query_y).backward()
        for parameter in maml.parameters():
            if parameter.grad is not None:
                parameter.grad.data.mul_(1.0 / tasks)
        optimizer.step()

    return step


def their_anil(network: nn.Module, sample: Callable[[], Task], tasks: int, shots: int, steps: int, rate: float) -> Step:
    """The loop of learn2learn's `examples/vision/anil_fc100.py`: features of all rows at once, the head adapted."""
    device = next(network.parameters()).device
    features = network.get_submodule("features")
    head = learn2learn.algorithms.MAML(network.get_submodule("classifier"), lr=rate)
    optimizer = torch.optim.Adam([*features.parameters(), *head.parameters()], 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        for _ in range(tasks):
            learner = head.clone()
            data, labels = sample()
            data, labels = features(data.to(device)), labels.to(device)
            (support_x, support_y), (query_x, query_y) = learn2learn.data.partition_task(data, labels, shots=shots)
            for _ in range(steps):
                learner.adapt(functional.cross_entropy(learner(support_x), support_y))
            functional.cross_entropy(learner(query_x), query_y).backward()
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.data.mul_(1.0 / tasks)
        optimizer.step()

    return step


def their_reptile(network: nn.Module, sample: Callable[[], Task], tasks: int, steps: int, batch: int) -> Step:
    """The loop of learn2learn's `examples/vision/reptile_miniimagenet.py`, with the inner Adam's state carried."""
    device = next(network.parameters()).device
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    state = torch.optim.Adam(network.parameters(), 1e-3, betas=(0.0, 0.999)).state_dict()

    def step() -> None:
        nonlocal state
        optimizer.zero_grad()
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for _ in range(tasks):
            learner = copy.deepcopy(network)
            inner = torch.optim.Adam(learner.parameters(), 1e-3, betas=(0.0, 0.999))
            inner.load_state_dict(state)
            data, labels = sample()
            data, labels = data.to(device), labels.to(device)
            for _ in range(steps):
                rows = torch.randint(len(data), (batch,))
                inner.zero_grad()
                functional.cross_entropy(learner(data[rows]), labels[rows]).backward()
                inner.step()
            state = inner.state_dict()
            for parameter, adapted in zip(network.parameters(), learner.parameters(), strict=True):
                parameter.grad.data.add_(parameter.data - adapted.data, alpha=1.0 / tasks)
        optimizer.step()

    return step


def plain_vmap(learner: MetaLearner, episode: Episode, optimizer: torch.optim.Optimizer) -> Step:
    """``torch.func.grad`` of ``torch.func.vmap`` over all tasks, and nothing else."""
    progress = torch.zeros((), device=learner.device)

    def mean_loss(params: Params) -> Tensor:
        losses, _ = torch.func.vmap(learner.outer_loss, (None, 0, None, None))(
            params, episode, learner.carry.tree(), progress
        )
        return losses.mean()

    return lambda: apply_gradient(learner, torch.func.grad(mean_loss)(learner.meta_parameters()), optimizer)


def apply_gradient(learner: MetaLearner, grads: Params, optimizer: torch.optim.Optimizer) -> None:
    """One outer step."""
    parameters = dict(learner.named_parameters())
    for name, grad in map_params(Tensor.detach, grads).items():
        parameters[name].grad = grad
    optimizer.step()
