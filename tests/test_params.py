"""Parameters as one vector and back."""

import pytest
import torch

from lightning_meta.backbones import Conv4
from lightning_meta.params import flatten, unflatten


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
