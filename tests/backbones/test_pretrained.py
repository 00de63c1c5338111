"""Networks of torchvision with weights from a file: features and meta-gradients as in plain PyTorch."""

import copy
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
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


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_read_from_a_file_without_its_head(suffix: str, tmp_path: Path) -> None:
    def network(classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, classes))

    trained, path = network(7), tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained.state_dict(), path)
    backbone = Pretrained(WAYS, network(9), str(path))
    assert torch.equal(backbone.network[0].weight, trained[0].weight)
    assert backbone.network[3].weight.shape == (WAYS, 16)
    x = torch.rand(2, 3, 4, 4)
    mean, deviation = (torch.tensor(torchvision.models.ResNet18_Weights.DEFAULT.transforms().__dict__[key])
                       for key in ("mean", "std"))  # fmt: skip
    normalised = (x - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(backbone(x), backbone.network(normalised))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "there is no such file: nothing is downloaded"),
        (lambda path: path.write_text("no weights"), "cannot be read as a state_dict"),
        (lambda path: torch.save([1], path), "cannot be read as a state_dict"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "as a state_dict: it is not a regular file"),
        (lambda path: torch.save({"0.bias": torch.zeros(4)}, path), "whose 0.weight is missing, but in Sequential it"),
        (
            lambda path: torch.save({"0.bias": torch.zeros(4), "0.weight": torch.zeros(4, 2)}, path),
            r"whose 0.weight is of shape \(4, 2\), but in Sequential it is of shape \(4, 3\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(change: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.touch()
    change(path)
    with pytest.raises(MetaLearningError, match=said) as refusal:
        Pretrained(WAYS, nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), str(path))
    assert len(str(refusal.value).splitlines()) == 1


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
            {"mean": [0.1] * 4, "deviation": [1] * 4},
            "model.backbone.mean has 4 numbers, but Sequential takes",
        ),
        ({"deviation": [0, 1, 1]}, r"model.backbone.deviation is \[0, 1, 1\], expected a number above 0"),
        ({"deviation": [-1, 1, 1]}, "model.backbone.deviation is .*, expected a number above 0"),
        ({"deviation": [math.nan, 1, 1]}, "model.backbone.deviation is .*, expected a number above 0"),
        ({"deviation": [1e-300, 1, 1]}, "model.backbone.deviation is .*, expected a number above 0"),
        ({"deviation": None}, "model.backbone.deviation is None, expected a number above 0"),
        ({"mean": [math.inf, 0, 0]}, "model.backbone.mean is .*, expected a finite number"),
        ({"mean": 0.5}, "model.backbone.mean is 0.5, expected a finite number"),
        ({"mean": "abc"}, "model.backbone.mean is 'abc', expected a finite number"),
        ({"mean": []}, r"model.backbone.mean is \[\], expected a finite number"),
        ({"network": small_network(1)}, "model.backbone.mean has 3 numbers, but Sequential takes images of 1 channels"),
    ],
)
def test_moments_that_fit_no_images_are_refused_by_their_name(settings: Any, said: str) -> None:
    with pytest.raises(MetaLearningError, match=f"^{said}"):
        Pretrained(WAYS, **{"network": small_network()} | settings)


def test_one_mean_stands_for_all_channels_and_arrays_are_read() -> None:
    x = torch.rand(2, 3, 4, 4)
    one = Pretrained(WAYS, small_network(), mean=np.array([0.5]), deviation=[0.25])
    torch.testing.assert_close(one(x), one.network((x - 0.5) / 0.25))


def test_images_of_other_channels_than_the_mean_are_refused_at_setup(tmp_path: Path) -> None:
    data = ArrayEpisodes(
        x=np.zeros((30, 4, 2, 2)), y=np.arange(10).repeat(3), ways=WAYS, test_classes=3, meta_batch_size=2, test_tasks=2
    )
    learner = learner_of("MAML", Pretrained(WAYS, nn.Sequential(nn.Flatten(), nn.Linear(16, 9))))
    with pytest.raises(MetaLearningError, match="^model.backbone.mean has 3 numbers, but the images have 4 channels"):
        trainer(tmp_path).fit(learner, data)


VALUES: dict[str, tuple[str, Any, str]] = {
    "nan": ("0.weight", lambda weight: weight * math.nan, "0.weight holds NaN or infinity"),
    "infinity": ("0.bias", lambda bias: bias / 0, "0.bias holds NaN or infinity"),
    "beyond float32": ("0.weight", lambda weight: weight.double() * 1e300, "0.weight holds NaN or infinity"),
    "statistics": ("1.running_mean", lambda mean: mean * math.nan, "1.running_mean holds NaN or infinity"),
    "variance": ("1.running_var", lambda variance: -variance, "1.running_var holds negative variances"),
    "integers": ("0.weight", lambda weight: weight.long(), "0.weight holds torch.int64, but torch.float32 is expected"),
    "complex": ("0.weight", lambda weight: weight + 1j, "0.weight holds torch.complex64, but"),
    "shape": ("0.weight", lambda weight: weight[:, :1].contiguous(), r"0.weight is of shape \(4, 1, 3, 3\), but in"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("case", VALUES)
def test_weights_of_wrong_values_are_refused_by_their_name(case: str, suffix: str, tmp_path: Path) -> None:
    name, change, said = VALUES[case]
    path, state = tmp_path / f"weights{suffix}", small_network().state_dict()
    save = save_file if suffix == ".safetensors" else torch.save
    save(state | {name: change(state[name])}, path)
    with pytest.raises(MetaLearningError, match=f"^model.backbone.weights is {path}, whose {said}"):
        Pretrained(WAYS, small_network(), str(path))
    save(state | {"3.weight": state["3.weight"] * math.nan}, path)  # of the head, which is not used
    Pretrained(WAYS, small_network(), str(path))


@pytest.mark.parametrize("content", [[1], {"state_dict": [3]}, {"0.weight": 3.0}, {3: torch.zeros(2)}, torch.zeros(3)])
def test_files_without_named_tensors_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(MetaLearningError, match="cannot be read as a state_dict: ") as refusal:
        Pretrained(WAYS, small_network(), str(tmp_path / "weights.pth"))
    assert len(str(refusal.value).splitlines()) == 1
