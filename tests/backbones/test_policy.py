"""The Gaussian policy."""

import torch

from lightning_meta.backbones import GaussianPolicy


def test_means_and_deviations() -> None:
    torch.manual_seed(0)
    policy = GaussianPolicy(3, inputs=2, hidden=(5,))
    x = torch.randn(4, 2)
    outputs = policy(x)
    assert outputs.shape == (4, 6)
    assert (outputs[:, 3:] == 0).all()
    layers = [part for part in policy.mean if isinstance(part, torch.nn.Linear)]
    hidden = torch.tanh(x @ layers[0].weight.T)  # biases begin at zero
    torch.testing.assert_close(outputs[:, :3], hidden @ layers[1].weight.T)


def test_deviations_are_adapted_and_bounded_below() -> None:
    policy = GaussianPolicy(2)
    assert [tuple(p.shape) for name, p in policy.named_parameters() if name == "log_std"] == [(2,)]
    with torch.no_grad():
        policy.log_std.fill_(-100.0)
    torch.testing.assert_close(policy(torch.zeros(1, 2))[0, 2:], torch.full((2,), 1e-6).log())


def test_weights_begin_as_xavier_draws_them() -> None:
    torch.manual_seed(0)
    weight = GaussianPolicy(2, hidden=(64, 64)).mean[3].weight
    bound = (6 / 128) ** 0.5
    assert 0.98 * bound < weight.abs().max() <= bound
