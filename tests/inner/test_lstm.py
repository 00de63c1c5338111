"""The learned inner rule against torch's LSTM and the formulas of its paper, and what it refuses."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import LSTMOptimizer
from lightning_meta.inner.lstm import log_and_sign
from lightning_meta.mapping import map_tasks
from lightning_meta.params import Params, map_params
from tests.helpers import torch_lstm

pytestmark = pytest.mark.usefixtures("float64")

UNITS = 6
RULE = LSTMOptimizer(UNITS, 0.3)


def network() -> Params:
    torch.manual_seed(0)
    return {"w": torch.randn(3, 4), "b": torch.randn(5)}


def rule_of(fast: Params) -> Params:
    """A rule without zeros."""
    torch.manual_seed(1)
    return map_params(lambda value: value + 0.3 * torch.randn_like(value), RULE.learned(fast))


def test_steps_and_gradients_equal_torchs_lstm() -> None:
    fast = network()
    meta = map_params(Tensor.requires_grad_, rule_of(fast))
    grads = [map_params(torch.randn_like, fast) for _ in range(4)]
    state, moved = RULE.init(fast), fast
    for step, grad in enumerate(grads):
        moved, state = RULE.update(grad, state, moved, meta, step)
    sequence = torch.stack([log_and_sign(torch.cat([g.flatten() for g in grad.values()]), RULE.k) for grad in grads])
    lstm = torch_lstm(meta)
    outputs, (hidden, cells) = lstm(sequence)
    steps = 0.3 * (outputs @ meta["linear.weight"] + meta["linear.bias"]).sum(0)[:, 0]
    expected = {"w": fast["w"] + steps[:12].view(3, 4), "b": fast["b"] + steps[12:]}
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)
    for layer, (output, cell) in enumerate(state):
        torch.testing.assert_close((output, cell), (hidden[layer], cells[layer]), rtol=0, atol=1e-12)
    ours = torch.autograd.grad(sum(value.square().sum() for value in moved.values()), list(meta.values()))
    sum(value.square().sum() for value in expected.values()).backward()  # type: ignore[union-attr]
    for (name, grad), layer in zip(zip(meta, ours, strict=True), [0, 0, 1, 1, None, None], strict=True):
        if layer is not None:
            weight = torch.cat([getattr(lstm, f"{kind}_l{layer}").grad for kind in ("weight_ih", "weight_hh")], 1).T
            theirs = weight if name.endswith("weight") else getattr(lstm, f"bias_ih_l{layer}").grad
            torch.testing.assert_close(grad, theirs, rtol=1e-10, atol=1e-12)


def test_log_and_sign_is_the_papers_formula() -> None:
    grads = torch.tensor([3.0, -3.0, 1e-2, -1e-2, 6e-3, -1e-4, 1e-30, 0.0])
    for grad, (first, second) in zip(grads.tolist(), log_and_sign(grads, 5.0).tolist(), strict=True):
        large = abs(grad) >= math.exp(-5)
        assert first == pytest.approx(math.log(abs(grad)) / 5 if large else -1, abs=1e-12)
        assert second == pytest.approx(math.copysign(1, grad) if large else math.exp(5) * grad, abs=1e-12)
    zero = torch.zeros(1, requires_grad=True)
    log_and_sign(zero, 5.0).sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()


def test_permuted_coordinates_move_alike() -> None:
    fast = {"w": torch.randn(12)}
    meta, order = rule_of(fast), torch.randperm(12)

    def run(order: Tensor) -> Tensor:
        moved, state = {"w": fast["w"][order]}, RULE.init(fast)
        for step in range(3):
            grads = {"w": moved["w"].sin() * torch.arange(12.0)[order]}
            moved, state = RULE.update(grads, state, moved, meta, step)
        return moved["w"]

    torch.testing.assert_close(run(order), run(torch.arange(12))[order], rtol=0, atol=1e-14)
    assert run(torch.arange(12)).unique().numel() == 12  # and not all the same


def test_tasks_together_move_as_alone() -> None:
    fast = map_params(lambda value: value + torch.randn(3, *value.shape), network())
    meta = rule_of(network())

    def run(fast: Params) -> Params:
        state = RULE.init(fast)
        for step in range(2):
            fast, state = RULE.update(map_params(torch.sin, fast), state, fast, meta, step)
        return fast

    together = map_tasks(run, (0,), fast)
    for task in range(3):
        alone = run(map_params(lambda value: value[task], fast))  # noqa: B023
        torch.testing.assert_close(map_params(lambda value: value[task], together), alone, rtol=0, atol=1e-12)  # noqa: B023


def test_a_new_rule_is_drawn_from_the_global_generator() -> None:
    big = LSTMOptimizer(200)
    fast = network()
    torch.manual_seed(3)
    first, again = big.learned(fast), big.learned(fast)
    torch.manual_seed(3)
    torch.testing.assert_close(big.learned(fast), first, rtol=0, atol=0)
    assert not torch.equal(first["lstm.0.weight"], again["lstm.0.weight"])
    for name, inputs in (("lstm.0", 202), ("lstm.1", 400), ("linear", 200)):
        deviation = first[f"{name}.weight"].std().item() * math.sqrt(inputs)
        assert deviation == pytest.approx(0.88, abs=0.08)  # of a normal distribution that is cut at two deviations
    for layer in range(2):
        assert first[f"lstm.{layer}.bias"].view(4, 200).mean(1).tolist() == [0, 1, 0, 0]


def test_parameters_that_the_rule_cannot_move_are_refused() -> None:
    fast = network()
    meta = RULE.learned(fast)
    mixed = fast | {"b": fast["b"].float()}
    with pytest.raises(MetaLearningError, match=r"float64 on cpu, but b of .*float32 on cpu: .* trainer.precision"):
        RULE.update(mixed, RULE.init(fast), mixed, meta, 0)


def saved(path: Path, **changes: Any) -> Path:
    """A checkpoint of a trained rule."""
    values = {f"inner_parameters.{name.replace('.', '/')}": value for name, value in rule_of(network()).items()}
    settings = {"output_scale": 0.3, "k": 5.0, "checkpoint": None}
    held = {"state_dict": values, "hyper_parameters": {"inner": {"optimizer": {"init_args": settings}}}}
    torch.save(held | changes, path)
    return path


def test_a_trained_rule_is_taken_from_a_checkpoint(tmp_path: Path) -> None:
    rule = LSTMOptimizer(UNITS, 0.3, checkpoint=str(saved(tmp_path / "last.ckpt")))
    torch.testing.assert_close(rule.learned(network()), rule_of(network()), rtol=0, atol=0)
    single = rule.learned(map_params(Tensor.float, network()))
    assert {value.dtype for value in single.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("rule", "changes", "said"),
    [
        ({}, None, "no such file"),
        ({}, b"not a checkpoint", "cannot be read as a checkpoint"),
        ({}, {"state_dict": {"backbone.w": torch.zeros(1)}}, "holds no LSTMOptimizer"),
        ({"units": 7}, {}, "a rule of units 6, but .*units is 7: set it to 6"),
        ({"output_scale": 0.1}, {}, "a rule of output_scale 0.3, but .*output_scale is 0.1: set it to 0.3"),
    ],
)
def test_what_holds_no_such_rule_is_refused(rule: dict[str, Any], changes: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    if isinstance(changes, bytes):
        path.write_bytes(changes)
    elif changes is not None:
        saved(path, **changes)
    with pytest.raises(MetaLearningError, match=f"optimizer.checkpoint is .*last.ckpt.*{said}"):
        LSTMOptimizer(**{"units": UNITS, "output_scale": 0.3, "checkpoint": str(path)} | rule).learned(network())
