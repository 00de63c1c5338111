"""Inner optimizers against torch's own."""

import pytest
import torch

from lightning_meta.inner import SGD, Adam, InnerOptimizer, last, unroll

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (SGD(0.1), torch.optim.SGD, {"lr": 0.1}),
        (Adam(0.1), torch.optim.Adam, {"lr": 0.1}),
        (Adam(0.1, beta1=0.0), torch.optim.Adam, {"lr": 0.1, "betas": (0.0, 0.999)}),
        (Adam(0.1, 0.9, 0.99, 1e-3), torch.optim.Adam, {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-3}),
    ],
)
def test_equals_torch(ours: InnerOptimizer, theirs: type[torch.optim.Optimizer], settings: dict) -> None:
    torch.manual_seed(0)
    data = torch.randn(20, 4)
    start = torch.randn(4)
    weight = start.clone().requires_grad_()
    optimizer = theirs([weight], **settings)
    order = torch.randperm(20).view(5, 4)
    trajectory = [start]
    for rows in order:
        optimizer.zero_grad()
        (data[rows] @ weight).sin().sum().backward()
        optimizer.step()
        trajectory.append(weight.detach().clone())
    steps = unroll(lambda fast, rows, step: (data[rows] @ fast["w"]).sin().sum(), ours, {"w": start}, {}, order)
    torch.testing.assert_close([fast["w"] for fast, _ in steps], trajectory, rtol=1e-9, atol=1e-12)


def test_without_steps_nothing_changes() -> None:
    start = {"w": torch.ones(2)}
    fast, state = last(
        unroll(lambda fast, rows, step: fast["w"].sum(), Adam(), start, {}, torch.empty(0, 3, dtype=torch.int64))
    )
    assert fast is start
    assert state.steps == 0
