"""Networks of torchvision with weights from a file: features and meta-gradients as in plain PyTorch."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lightning_meta.algorithms import ANIL, MAML, MAMLPlusPlus, PrototypicalNetworks
from lightning_meta.backbones import FrozenBatchNorm, Pretrained, replace_norms
from lightning_meta.data import ArrayEpisodes
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params
from tests.helpers import glyphs, gradient, tasks_of, trainer

RATE, WAYS = 0.1, 3
METHODS = {"MAML": MAML, "ANIL": ANIL, "PrototypicalNetworks": PrototypicalNetworks}


def image_net_like() -> nn.Module:
    """resnet18 with weights and running statistics as if it had been trained; its images are normalised elsewhere."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=10)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1)
    return network


def pair(frozen: bool) -> tuple[Pretrained, nn.Module]:
    """The backbone, and the same network as PyTorch runs it in evaluation."""
    backbone = Pretrained(WAYS, image_net_like(), mean=None, frozen=frozen)
    plain = image_net_like().eval().requires_grad_(not frozen)
    plain.fc = copy.deepcopy(backbone.network.fc)
    return backbone, plain


def episode(tasks: int = 2, steps: int = 2) -> Episode:
    torch.manual_seed(1)
    support, labels = torch.randn(tasks, WAYS, 3, 16, 16), torch.arange(WAYS).expand(tasks, -1)
    order = torch.arange(WAYS).expand(tasks, steps, -1)
    return Episode(support, labels, torch.randn_like(support), labels, order, torch.arange(tasks), labels)


def learner_of(method: str, backbone: nn.Module) -> MetaLearner:
    settings: dict[str, Any] = {"task_chunk": 2, "compile": False}
    inner = () if method == "PrototypicalNetworks" else (InnerLoop(SGD(RATE), 2, evaluation_steps=1),)
    return METHODS[method](backbone, *inner, **settings)


def written_out(method: str, network: nn.Module, task: Episode) -> dict[str, Tensor]:
    """The meta-gradient of one task in plain PyTorch, by the names of ``network``."""
    params = {name: p for name, p in network.named_parameters() if p.requires_grad}

    def features(x: Tensor) -> Tensor:
        body = copy.copy(network)
        body._modules = {**network._modules, "fc": nn.Identity()}
        return body(x)

    if method == "PrototypicalNetworks":
        support, queries = features(task.support_x), features(task.query_x)
        prototypes = torch.stack([support[task.support_y == way].mean(0) for way in range(WAYS)])
        loss = functional.cross_entropy(-torch.cdist(queries, prototypes).square(), task.query_y)
    else:
        fast = {name: p for name, p in params.items() if method == "MAML" or name.startswith("fc.")}
        for _ in range(2):
            outputs = functional_call(network, fast, (task.support_x,))
            slopes = torch.autograd.grad(
                functional.cross_entropy(outputs, task.support_y), list(fast.values()), create_graph=True
            )
            fast = {name: p - RATE * slope for (name, p), slope in zip(fast.items(), slopes, strict=True)}
        loss = functional.cross_entropy(functional_call(network, fast, (task.query_x,)), task.query_y)
    if not loss.requires_grad:
        return {name: torch.zeros_like(p) for name, p in params.items()}
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(params, grads, strict=True))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_meta_gradients_of_a_frozen_resnet18_equal_a_written_out_loop(method: str, frozen: bool) -> None:
    backbone, plain = pair(frozen)
    batch = episode()
    found: Params = gradient(learner_of(method, backbone).train(), batch).grads
    each = [written_out(method, plain, task) for task in tasks_of(batch)]
    for name in each[0]:
        mean = sum(grads[name] for grads in each) / len(each)
        torch.testing.assert_close(found[f"backbone.network.{name}"], mean, rtol=1e-8, atol=1e-11)
    assert len(found) == len(each[0])


@pytest.mark.parametrize("method", [*METHODS, "MAMLPlusPlus"])
def test_a_fit_and_a_test_leave_statistics_and_frozen_weights_as_they_are(method: str, tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(196, 9)
    )
    network[1].running_mean.normal_()
    backbone = Pretrained(WAYS, network, frozen=True)
    if method == "MAMLPlusPlus":
        learner: MetaLearner = MAMLPlusPlus(backbone, InnerLoop(SGD(RATE), 1, evaluation_steps=1), compile=False)
        assert not learner.norms
    else:
        learner = learner_of(method, backbone)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    run = trainer(tmp_path)
    run.fit(learner, glyphs())
    run.test(learner, glyphs(test_tasks=2), verbose=False)
    after = backbone.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "network.1.running_mean" in before
    assert changed == (set() if method == "PrototypicalNetworks" else {"network.5.weight", "network.5.bias"})


def test_maml_plus_plus_learns_the_scales_of_norms_whose_statistics_are_frozen() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 9))
    learner = MAMLPlusPlus(Pretrained(WAYS, network), InnerLoop(SGD(RATE), 2, evaluation_steps=2))
    assert set(learner.norms) == {"network/1/weight", "network/1/bias"}


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "densenet121", "efficientnet_b0", "swin_t"])
def test_features_are_those_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(weights=None)
    plain, given = copy.deepcopy(network).eval(), []
    backbone = Pretrained(WAYS, network, mean=None).train()
    for model in (plain, backbone):
        last = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
        last.register_forward_pre_hook(lambda layer, inputs: given.append(inputs[0]))
        with torch.no_grad():
            model(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(given[1], given[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm])
@pytest.mark.parametrize("affine", [True, False])
def test_a_frozen_norm_is_that_of_pytorch_in_evaluation(kind: type[nn.Module], affine: bool) -> None:
    norm = kind(3, affine=affine)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    network = nn.Sequential(copy.deepcopy(norm))
    replace_norms(network, keep_statistics=True)
    x = torch.randn(2, 3, *[4] * {"1": 1, "2": 2, "3": 3}.get(kind.__name__[-2], 2))
    assert isinstance(network[0], FrozenBatchNorm)
    torch.testing.assert_close(network.train()(x), norm.eval()(x))


def test_a_network_without_a_linear_end_is_refused() -> None:
    with pytest.raises(MetaLearningError, match="SqueezeNet ends with AdaptiveAvgPool2d at classifier.3, expected"):
        Pretrained(WAYS, torchvision.models.squeezenet1_0())


def small_network(channels: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 9))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mean": [0.1, 0.2]}, "model.backbone.mean has 2 numbers and model.backbone.deviation 3"),
        (
            {"deviation": [0, 1, 1]},
            r"model.backbone.deviation is \[0, 1, 1\], expected a list of numbers above 0, one for each channel",
        ),
        (
            {"deviation": [-1, 1, 1]},
            "model.backbone.deviation is .*, expected a list of numbers above 0, one for each channel",
        ),
        (
            {"deviation": [math.nan, 1, 1]},
            "model.backbone.deviation is .*, expected a list of numbers above 0, one for each channel",
        ),
        (
            {"deviation": [1e-300, 1, 1]},
            "model.backbone.deviation is .*, expected a list of numbers above 0, one for each channel",
        ),
        (
            {"deviation": None},
            "model.backbone.deviation is None, expected a list of numbers above 0, one for each channel",
        ),
        (
            {"mean": [math.inf, 0, 0]},
            "model.backbone.mean is .*, expected a list of finite numbers, one for each channel",
        ),
        ({"mean": 0.5}, "model.backbone.mean is 0.5, expected a list of finite numbers, one for each channel"),
        ({"mean": "abc"}, "model.backbone.mean is 'abc', expected a list of finite numbers, one for each channel"),
        ({"mean": []}, r"model.backbone.mean is \[\], expected a list of finite numbers, one for each channel"),
        ({"mean": 0.4, "deviation": 0.2}, "model.backbone.mean is 0.4, expected a list of finite numbers, one for"),
        (
            {"deviation": 0.2},
            "model.backbone.deviation is 0.2, expected a list of numbers above 0, one for each channel",
        ),
    ],
)
def test_moments_that_fit_no_images_are_refused_by_their_name(settings: Any, said: str) -> None:
    with pytest.raises(MetaLearningError, match=f"^{said}"):
        Pretrained(WAYS, **{"network": small_network()} | settings)


def test_one_mean_stands_for_all_channels_and_arrays_are_read() -> None:
    x = torch.rand(2, 3, 4, 4)
    one = Pretrained(WAYS, small_network(), mean=np.array([0.5]), deviation=[0.25])
    torch.testing.assert_close(one(x), one.network((x - 0.5) / 0.25))


class Stem(nn.Sequential):
    """A network of three channels whose first convolution has others, for what is done to the images before it."""

    def __init__(self, channels: int, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__(nn.Conv2d(channels, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 9))
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 3
        return super().forward(self.before(x))


STEMS = {
    "patches": (48, lambda x: functional.pixel_unshuffle(x, 4)),
    "grey": (1, lambda x: x.mean(1, keepdim=True)),
    "grey beside the colours": (4, lambda x: torch.cat([x, x.mean(1, keepdim=True)], 1)),
    "pairs": (2, lambda x: x[:, :2]),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("case", STEMS)
def test_a_stem_may_change_the_channels_before_the_first_convolution(case: str, channels: int) -> None:
    backbone, x = Pretrained(WAYS, Stem(*STEMS[case])), torch.rand(2, channels, 8, 8)
    mean, deviation = backbone.moments
    torch.testing.assert_close(backbone(x), backbone.network((x.expand(-1, 3, -1, -1) - mean) / deviation))


@pytest.mark.parametrize(
    ("channels", "network", "said"),
    [
        (4, nn.Sequential(nn.Flatten(), nn.Linear(16, 9)), "but the images have 4 channels"),
        (4, small_network(4), "but the images have 4 channels"),
        (
            1,
            nn.Sequential(nn.Flatten(), nn.Linear(16, 9)),
            "so images of 1 channel get 3, which Sequential does not take",
        ),
        (1, small_network(1), "so images of 1 channel get 3, which Sequential does not take"),
    ],
)
def test_images_of_other_channels_than_the_mean_are_refused_at_setup(
    channels: int, network: nn.Module, said: str, tmp_path: Path
) -> None:
    x, classes = np.zeros((30, channels, 4, 4)), np.arange(10).repeat(3)
    data = ArrayEpisodes(x=x, y=classes, ways=WAYS, test_classes=3, meta_batch_size=2, test_tasks=2)
    with pytest.raises(MetaLearningError, match=f"^model.backbone.mean has 3 numbers, {said}: give one number"):
        trainer(tmp_path).fit(learner_of("MAML", Pretrained(WAYS, network)), data)


def test_other_errors_of_a_network_for_images_of_one_channel_are_its_own() -> None:
    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("of mine")

    with pytest.raises(RuntimeError, match="^of mine$"):
        Pretrained(WAYS, Stem(3, broken))(torch.rand(2, 1, 8, 8))
