"""learn2learn: meta-steps as its examples write them, on its own samplers and on a fixed batch."""

import contextlib
import copy
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any
from unittest import mock

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from contenders import INNER_RATE, REPTILE_BATCH, REPTILE_RATE, Contender, Problem, Step, gradients, network_of
from lightning_meta.data import TasksetEpisodes
from lightning_meta.data.drawing.images import ImageEpisodes
from lightning_meta.episode import Episode

Task = tuple[Tensor, Tensor]

with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
    warnings.simplefilter("ignore")  # it imports gym, which prints that it is unmaintained
    learn2learn: Any = importlib.import_module("learn2learn")


def computation(problem: Problem) -> Contender:
    """The loop of its examples on the batch of the problem; its Reptile carries moments from task to task."""
    reptile = problem.case.algorithm == "Reptile"
    network = their_network(problem)
    order = cycle(problem.episode.inner_order.flatten(0, 1))
    step = step_of(problem, network, fixed_tasks(problem.episode, with_queries=not reptile), lambda count: next(order))
    return Contender(step, gradients(problem, _in_our_order(network)), serial=reptile)


def end_to_end(problem: Problem, sample: Callable[[], Task]) -> Step:
    """The loop of its examples with tasks of its own."""
    return step_of(problem, their_network(problem), sample, lambda count: torch.randint(count, (REPTILE_BATCH,)))


def step_of(problem: Problem, network: nn.Module, sample: Callable[[], Task], rows: Callable[[int], Tensor]) -> Step:
    """A meta-step; ``rows`` says which of so many a step of Reptile sees."""
    case = problem.case
    if case.algorithm == "Reptile":
        return their_reptile(network, sample, rows, case.tasks, case.inner_steps)
    if case.algorithm == "ANIL":
        return their_anil(network, sample, case.tasks, case.shots, case.inner_steps, INNER_RATE)
    first_order = case.algorithm == "FOMAML"
    return their_maml(network, sample, case.tasks, case.shots, case.inner_steps, INNER_RATE, first_order)


def fixed_tasks(episode: Episode, with_queries: bool) -> Callable[[], Task]:
    """The tasks of an episode in turn, as learn2learn's own come: the images of a class together."""
    ways = int(episode.support_y.max()) + 1
    support, query = (x.unflatten(1, (ways, -1)) for x in (episode.support_x, episode.query_x))
    rows = torch.cat([support, query] if with_queries else [support], 2).flatten(1, 2)
    labels = torch.arange(ways, device=rows.device).repeat_interleave(rows.shape[1] // ways)
    tasks = cycle(rows)
    return lambda: (next(tasks), labels)


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


def their_network(problem: Problem) -> nn.Module:
    """learn2learn's own network, Omniglot's with our weights; for Reptile ours, since it has none of Nichol's."""
    case, models = problem.case, learn2learn.vision.models
    if case.algorithm == "Reptile":
        return network_of(problem)
    if case.backbone == "omniglot":
        network = models.OmniglotCNN(case.ways)
        for parameter, value in zip(_in_our_order(network), problem.learner.meta_parameters().values(), strict=True):
            parameter.data.copy_(value)
    elif case.backbone == "mini_imagenet":
        network = models.MiniImagenetCNN(case.ways)
    else:
        network = models.ResNet12(case.ways)
        for part in network.modules():  # its DropBlock would draw at random inside the inner loop
            if hasattr(part, "drop_rate"):
                part.drop_rate = 0.0
    return network.to(next(problem.learner.parameters()))  # type: ignore[no-any-return]


def _in_our_order(network: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of a conv-4, each convolution before its norm."""
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    convolutions, norms = ([part for part in network.modules() if isinstance(part, kind)] for kind in kinds)
    for pair in zip(convolutions, norms, strict=True):
        for part in pair:
            yield from part.parameters()
    yield from next(part for part in network.modules() if isinstance(part, nn.Linear)).parameters()


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


def their_reptile(
    network: nn.Module, sample: Callable[[], Task], rows: Callable[[int], Tensor], tasks: int, steps: int
) -> Step:
    """The loop of learn2learn's `examples/vision/reptile_miniimagenet.py`, with the inner Adam's state carried."""
    device = next(network.parameters()).device
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    state = torch.optim.Adam(network.parameters(), REPTILE_RATE, betas=(0.0, 0.999)).state_dict()

    def step() -> None:
        nonlocal state
        optimizer.zero_grad()
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for _ in range(tasks):
            learner = copy.deepcopy(network)
            inner = torch.optim.Adam(learner.parameters(), REPTILE_RATE, betas=(0.0, 0.999))
            inner.load_state_dict(state)
            data, labels = sample()
            data, labels = data.to(device), labels.to(device)
            for _ in range(steps):
                seen = rows(len(data))
                inner.zero_grad()
                functional.cross_entropy(learner(data[seen]), labels[seen]).backward()
                inner.step()
            state = inner.state_dict()
            for parameter, adapted in zip(network.parameters(), learner.parameters(), strict=True):
                parameter.grad.data.add_(parameter.data - adapted.data, alpha=1.0 / tasks)
        optimizer.step()

    return step
