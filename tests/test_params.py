"""Parameters as one vector and back, and by the parts that hold them."""

import copy

import pytest
import torch
from torch import nn

from lightning_meta.backbones import Conv4
from lightning_meta.params import Parts, flatten, unflatten


def test_there_and_back_again() -> None:
    params = {name: tensor.detach() for name, tensor in Conv4(3, filters=4).named_parameters()}
    vector = flatten(params)
    assert vector.shape == (sum(tensor.numel() for tensor in params.values()),)
    back = unflatten(vector, params)
    assert list(back) == list(params)
    assert all(torch.equal(back[name], tensor) and back[name].shape == tensor.shape for name, tensor in params.items())


def test_the_order_is_that_of_the_names_as_they_come() -> None:
    params = {"b": torch.tensor([[1.0, 2.0]]), "a": torch.tensor(3.0)}
    assert flatten(params).tolist() == [1, 2, 3]
    found = unflatten(torch.tensor([4.0, 5.0, 6.0]), params)
    assert found["b"].tolist() == [[4, 5]]
    assert found["a"].item() == 6


def test_a_vector_of_another_length_does_not_pass() -> None:
    with pytest.raises(RuntimeError, match="split"):
        unflatten(torch.zeros(4), {"w": torch.zeros(3)})


def test_both_are_differentiable_and_vectorise() -> None:
    params = {"w": torch.randn(2, 3), "b": torch.randn(3)}

    def twice(vector: torch.Tensor) -> torch.Tensor:
        return flatten({name: tensor.square() for name, tensor in unflatten(vector, params).items()})

    vectors = torch.randn(4, 9)
    torch.testing.assert_close(torch.func.vmap(twice)(vectors), vectors.square())
    torch.testing.assert_close(torch.func.jacrev(twice)(vectors[0]), (2 * vectors[0]).diag())


def names(parts: Parts, module: nn.Module) -> list[str]:
    """Those that learn, which are the module's own."""
    expected = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    found = parts.parameters()
    assert list(found) == list(expected) and all(found[name] is expected[name] for name in expected)
    held = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    assert {id(tensor) for tensor in parts.tensors()} == held
    return list(found)


def test_parts_follow_every_change_of_a_module() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 3)))
    module.register_module("none", None)
    parts = Parts(module)
    assert len(names(parts, module)) == 6
    module[0].weight.requires_grad_(False)
    assert "0.weight" not in names(parts, module)
    module[2][0] = nn.Linear(3, 3, bias=False)  # a part of a part is exchanged
    assert names(parts, module) == ["0.bias", "1.weight", "1.bias", "2.0.weight"]
    module.append(module[2][0])  # one under two names
    module[1].weight = nn.Parameter(torch.ones(3))
    module.register_parameter("own", nn.Parameter(torch.ones(1)))
    module[2].register_buffer("late", torch.ones(1))
    assert names(parts, module) == ["own", "0.bias", "1.weight", "1.bias", "2.0.weight"]
    del module[2]
    assert names(parts, module) == ["own", "0.bias", "1.weight", "1.bias", "3.weight"]
    module[-1].bias = module[0].bias  # two parts share a parameter
    assert len(names(parts, module)) == 5
    last = module[-1]
    del module[-1]
    module.add_module("renamed", last)
    assert "renamed.weight" in names(parts, module)
    twin, copied = copy.deepcopy((module, parts))
    assert len(names(copied, twin)) == 5 and copied.parameters()["own"] is not module.own
