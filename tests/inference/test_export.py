"""What is exported computes what the adapted network does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_meta import algorithms
from lightning_meta.backbones import MLP, Conv4
from lightning_meta.errors import MetaLearningError
from lightning_meta.inference import export_onnx, export_program, load_learner
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner.adapted import AdaptedLearner

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime, which checks what was exported, is not installed")


def adapted(case: str) -> tuple[AdaptedLearner, torch.Tensor]:
    """An adapted learner, and rows for it."""
    torch.manual_seed(0)
    if case == "regression":
        learner = algorithms.MAML(MLP(1, inputs=1), InnerLoop(SGD(lr=0.01)), loss=functional.mse_loss)
        x = torch.randn(10, 1)
        return learner.adapt_to(x, x.sin()), torch.randn(7, 1)
    x, rows = torch.rand(6, 1, 28, 28), torch.rand(7, 1, 28, 28)
    if case == "shipped":
        learner = load_learner("omniglot_maml_5w1s")
    elif case == "prototypes":
        learner = algorithms.PrototypicalNetworks(Conv4(3, filters=4))
    else:
        backbone = Conv4(3, filters=4, downsample="max_pool", head="flatten", image_size=28)
        learner = algorithms.Reptile(backbone, InnerLoop(SGD(lr=0.01), evaluation_steps=2))
    return learner.adapt_to(x, [0, 0, 1, 1, 2, 2], together=case == "together"), rows


@pytest.mark.slow
@pytest.mark.parametrize("case", ["shipped", "alone", "together", "prototypes", "regression"])
def test_programs_and_onnx_give_the_same_outputs(case: str, tmp_path: Path) -> None:
    module, rows = adapted(case)
    torch.export.save(export_program(module), tmp_path / "a.pt2")
    program = torch.export.load(tmp_path / "a.pt2").module()
    export_onnx(module, tmp_path / "a.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "a.pt2"]
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        with torch.no_grad():
            expected = module(rows[:count])
        rounding = 16 * torch.finfo(torch.float32).eps * expected.abs().max().item()
        torch.testing.assert_close(program(rows[:count]), expected, rtol=0, atol=rounding)
        (found,) = session.run(["outputs"], {"x": rows[:count].numpy()})
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=rounding)


class Mixing(nn.Module):
    """Subtracts the mean over a batch by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x - x.mean(0))


def test_a_layer_that_mixes_rows_is_refused() -> None:
    torch.manual_seed(0)
    learner = algorithms.MAML(Mixing())
    x = torch.randn(4, 4)
    with pytest.raises(MetaLearningError, match="Mixing mixes the rows of a batch"):
        export_program(learner.adapt_to(x, [0, 0, 1, 1]))
    export_program(learner.adapt_to(x, [0, 0, 1, 1], together=True))
