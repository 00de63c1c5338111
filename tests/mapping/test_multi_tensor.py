"""Operations on many tensors at once against a loop over them."""

import pytest
import torch

from lightning_meta.mapping import magnitudes
from lightning_meta.mapping.multi_tensor import copy_all


def test_every_tensor_is_copied_whatever_its_type_and_its_place_in_memory() -> None:
    sources = [
        torch.randn(3, 4), torch.arange(5), torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.tensor([True, False]), torch.randn(4, 3).t(), torch.randn(()), torch.empty(0), torch.randn(2).double(),
        torch.arange(3).expand(2, 3),
    ]  # fmt: skip
    targets = [torch.zeros(source.shape, dtype=source.dtype) for source in sources]
    addresses = [target.data_ptr() for target in targets]
    copy_all(targets, sources)
    for target, source, address in zip(targets, sources, addresses, strict=True):
        torch.testing.assert_close(target, source)
        assert target.data_ptr() == address


def test_magnitudes_are_sums_of_absolute_entries() -> None:
    tensors = [torch.randn(3, 4), torch.randn(()), torch.zeros(0)]
    torch.testing.assert_close(magnitudes(tensors), torch.stack([tensor.abs().sum() for tensor in tensors]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spoilt", [torch.nan, torch.inf, -torch.inf])
def test_one_entry_that_is_not_finite_shows(dtype: torch.dtype, spoilt: float) -> None:
    tensors = [torch.ones(50, dtype=dtype) for _ in range(3)]
    assert magnitudes(tensors).isfinite().all()
    tensors[1][17] = spoilt
    assert magnitudes(tensors).isfinite().tolist() == [True, False, True]


def test_many_entries_of_half_precision_do_not_overflow() -> None:
    assert magnitudes([torch.full((1024, 1024), 0.1, dtype=torch.float16)]).isfinite().all()
