"""The norms against PyTorch's, and what vectorising does to second derivatives."""

import pytest
import torch
from torch import Tensor, nn

from lightning_meta.backbones import BatchNorm, InstanceNorm, LayerNorm, replace_norms, unmappable_norms
from lightning_meta.errors import MetaLearningError
from lightning_meta.mapping.normalisation import normalise

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (BatchNorm(3), nn.BatchNorm2d(3, track_running_stats=False)),
        (BatchNorm(3, affine=False), nn.BatchNorm2d(3, affine=False, track_running_stats=False)),
        (InstanceNorm(3), nn.InstanceNorm2d(3, affine=True)),
        (LayerNorm([5, 5]), nn.LayerNorm([5, 5])),
        (LayerNorm([5], bias=False), nn.LayerNorm(5, bias=False)),
    ],
)
def test_value_and_two_derivatives_equal_pytorch(ours: BatchNorm, theirs: nn.Module) -> None:
    x = torch.randn(4, 3, 5, 5, requires_grad=True)
    ours, theirs = ours.double(), theirs.double()
    results = []
    for norm in (ours, theirs):
        value = norm(x)
        (first,) = torch.autograd.grad(value.sin().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        results.append((value, first, second))
    for mine, reference in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-10)


def written_out(x: Tensor, over: list[int], eps: float) -> Tensor:
    centred = x - x.mean(over, keepdim=True)
    return centred / (centred.square().mean(over, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("over", [[0, 2, 3], [2, 3], [0]])
def test_three_derivatives_equal_those_of_the_written_out_norm(over: list[int]) -> None:
    torch.manual_seed(0)
    x, *directions = torch.randn(4, 5, 3, 4, 4, requires_grad=True)
    results = []
    for function in (normalise, written_out):
        derivatives = [function(x, over, 1e-3)]
        for direction in directions[:3]:
            value = (derivatives[-1].sin() * direction.detach()).sum()
            derivatives += torch.autograd.grad(value, x, create_graph=True)
        results.append(derivatives)
    for mine, reference in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-10)


def test_half_precision_is_normalised_in_float32() -> None:
    x = torch.randn(4, 3, 5, 5).bfloat16()
    expected = written_out(x.float(), [0, 2, 3], 1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(normalise(x, [0, 2, 3], 1e-5), expected)
    torch.testing.assert_close(normalise(x, [0, 2, 3], 1e-5), expected.bfloat16())


def second_order(norm: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """Gradient in ``weight`` of a loss after one inner step, for each task of ``x``."""

    def loss(weight: Tensor, x: Tensor) -> Tensor:
        return norm(nn.functional.conv2d(x, weight)).tanh().square().mean()

    def outer(weight: Tensor, x: Tensor) -> Tensor:
        return loss(weight - torch.func.grad(loss)(weight, x), x.flip(0))

    return torch.func.vmap(torch.func.grad(outer), (None, 0))(weight, x)


@pytest.mark.parametrize("norm", [BatchNorm(3), InstanceNorm(3), LayerNorm([4, 4])])
def test_vmap_equals_a_loop_in_second_order(norm: nn.Module) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(3, 4, 2, 6, 6), torch.randn(3, 2, 3, 3)
    norm = norm.double()
    looped = torch.cat([second_order(norm, task[None], weight) for task in x])
    torch.testing.assert_close(second_order(norm, x, weight), looped, rtol=1e-10, atol=1e-12)


def test_replacing_keeps_names_weights_and_values() -> None:
    torch.manual_seed(0)
    twice = nn.LayerNorm([4, 4])
    inner = nn.Sequential(nn.InstanceNorm2d(3), nn.ReLU(), twice, twice)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), inner)
    module = module.double()
    nn.init.uniform_(module[1].weight)
    x = torch.randn(4, 1, 6, 6)
    before = module(x)
    assert list(unmappable_norms(module)) == ["1", "2.0", "2.2", "2.3"]
    assert replace_norms(module) == ["1", "2.0", "2.2", "2.3"]
    assert not unmappable_norms(module)
    assert inner[2] is inner[3]
    torch.testing.assert_close(module(x), before)


class ActivatedNorm(nn.BatchNorm2d):
    """A norm with an activation, as some libraries have it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class NamedNorm(nn.BatchNorm2d):
    """A norm that computes what PyTorch's does."""


@pytest.mark.parametrize("norm", [ActivatedNorm(3), ChannelNorm(3)])
def test_norms_that_do_more_are_not_replaced_by_norms_that_do_less(norm: nn.Module) -> None:
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(norm))
    with pytest.raises(MetaLearningError, match=f"{type(norm).__name__} at 1.0, which does more than the norm"):
        replace_norms(module)
    assert isinstance(module[0], nn.BatchNorm2d)  # all or nothing
    module = nn.Sequential(NamedNorm(3), nn.SyncBatchNorm(3))
    assert replace_norms(module) == ["0", "1"]


def test_replaced_norms_stay_frozen_and_shared() -> None:
    network = nn.Sequential(nn.LayerNorm(3), nn.LayerNorm(3), nn.BatchNorm1d(3))
    network[1].weight = network[0].weight
    network[2].requires_grad_(False)
    replace_norms(network)
    assert network[1].weight is network[0].weight
    assert not any(parameter.requires_grad for parameter in network[2].parameters())
    assert [type(part).__module__ for part in network] == ["lightning_meta.backbones.norms"] * 3
