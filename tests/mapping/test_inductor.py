"""Fused kernels against the graph that they are made of: exact in float64, as exact as the graph in float32."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor.utils import run_and_get_code
from torch.fx.experimental.proxy_tensor import make_fx

from lightning_meta.algorithms import FOMAML, MAML
from lightning_meta.backbones import BatchNorm, Conv4
from lightning_meta.data import OmniglotEpisodes
from lightning_meta.episode import Episode, InnerBatches
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.mapping import Compiled, channels_last, chunk_gradient
from lightning_meta.mapping.inductor import add_in_stages, fuse, missing_compiler
from lightning_meta.params import flatten
from tests.helpers import image_episode

HINDRANCE = missing_compiler()
if torch.__version__.startswith("2.11"):
    HINDRANCE = "Inductor of PyTorch 2.11 writes C++ that does not compile for pictures behind a checked index"
needs_a_compiler = pytest.mark.skipif(bool(HINDRANCE), reason=HINDRANCE)


def staged(function: Any, *inputs: Tensor) -> torch.fx.GraphModule:
    graph = make_fx(function)(*inputs)
    add_in_stages(graph)
    return graph


@pytest.mark.parametrize("shape", [(980, 3), (97, 2), (5, 14, 14, 3), (4, 1, 30)], ids=str)
@pytest.mark.parametrize("over", [[0], [-1], [0, 1], [0, -1], []], ids=str)
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_sums_in_stages_are_the_same_sums(shape: tuple[int, ...], over: list[int], keep: bool, kind: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)

    def function(x: Tensor) -> Tensor:
        result: Tensor = getattr(x, kind)(over, keep)
        return result

    torch.testing.assert_close(staged(function, x)(x), function(x.double()).float(), rtol=1e-5, atol=1e-5)


def test_no_stage_adds_many_terms() -> None:
    graph = staged(lambda x: x.mean([0, 1, 2]), torch.randn(5, 14, 16, 3))
    sums = [node for node in graph.graph.nodes if node.target is torch.ops.aten.sum.dim_IntList]
    assert len(sums) == 3 and all(len(node.args[1]) == 1 for node in sums)


@needs_a_compiler
def test_fused_kernels_equal_the_graph_and_follow_what_it_follows(float64: None) -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), BatchNorm(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    learner, episode = MAML(backbone, InnerLoop(SGD(0.4), 1)), image_episode(2)
    backbone[1].weight.requires_grad_(False)  # which the graph uses without being given it
    run, carry, progress = chunk_gradient(learner.outer_loss), learner.carry.tree(), torch.zeros(())
    fused = Compiled(run, learner.parameters, fused=True)
    for change in (1.0, 2.0):
        backbone[1].weight.data.mul_(change)
        for task in (*episode.chunks(1), episode):  # one by one as on a CPU, and all at once as on a GPU
            expected = run(learner.meta_parameters(), task, carry, progress)
            for params in (learner.meta_parameters(), channels_last(learner.meta_parameters())):
                found = fused(params, task, carry, progress)
                torch.testing.assert_close(found.losses, expected.losses, rtol=1e-10, atol=1e-12)
                torch.testing.assert_close(found.grads, expected.grads, rtol=1e-10, atol=1e-12)


@needs_a_compiler
def test_kernels_made_for_rows_that_share_memory_serve_others() -> None:
    """As `torch.func.vmap` gives back what no row changes: weights before the first inner step."""
    compiled, x = Compiled(lambda x: x.flatten(1).sin(), fused=True), torch.randn(3, 2, 2)
    for rows in (x[:1].expand(3, 2, 2), x, x.transpose(1, 2)):
        torch.testing.assert_close(compiled(rows), rows.flatten(1).sin())


@needs_a_compiler
@pytest.mark.parametrize("activation", [[nn.ReLU()], [nn.LeakyReLU(0.1), nn.MaxPool2d(2)]], ids=["relu", "pool"])
def test_images_lie_channels_last_before_and_after_the_inner_step(
    activation: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "another")  # since a program in Python names shape and strides together
    layers = [layer for channels in (1, 16) for layer in (nn.Conv2d(channels, 16, 3, 1, 1), BatchNorm(16), *activation)]
    backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
    learner, episode = FOMAML(backbone, InnerLoop(SGD(0.4), 1)), image_episode(1)
    fused, params = Compiled(chunk_gradient(learner.outer_loss), fused=True), channels_last(learner.meta_parameters())
    with torch._inductor.config.patch(force_disable_caches=True):  # or there is no code to be seen
        _, (code,) = run_and_get_code(fused, params, episode, learner.carry.tree(), torch.zeros(()))
    images = re.findall(r"\(6, 16, (?!1,)\d+, (?!1\))\d+\), \(\d+, (\d+), \d+, \d+\)", code)  # shapes and strides
    assert len(images) > 4 and set(images) == {"1"}


@needs_a_compiler
def test_what_shares_memory_with_an_image_follows_it() -> None:
    def function(x: Tensor, weight: Tensor) -> list[Tensor]:
        image = x + weight
        rows = image.permute(0, 2, 3, 1)
        image.relu_()
        total = image.sum()
        image.mul_(2.0)
        whole = x * weight
        first, second = whole.split(2)
        before = first.exp()
        first.add_(5.0)
        return [total, rows * 1.0, before, second.cos(), whole * 1.0]

    inputs = channels_last([torch.randn(4, 3, 6, 6), torch.randn(1, 3, 1, 1)])
    torch.testing.assert_close(fuse(make_fx(function)(*inputs), inputs)(*inputs), function(*inputs))


def errors(gradients: list[Tensor], exact: list[Tensor]) -> Tensor:
    """The relative error of every task's gradient."""
    pairs = zip(gradients, exact, strict=True)
    return torch.stack([(found.double() - true).norm() / true.norm() for found, true in pairs])


@pytest.mark.slow
@needs_a_compiler
def test_every_task_of_omniglot_is_as_exact_as_by_the_graph(omniglot_root: Path) -> None:
    torch.manual_seed(0)
    data = OmniglotEpisodes(root=omniglot_root, ways=5, shots=1, queries=1, meta_batch_size=256)
    data.connect(InnerBatches(1), InnerBatches(1))
    data.prepare_data()
    data.setup("fit")
    episode, learner = data.draw("train", torch.arange(256)), MAML(Conv4(5), InnerLoop(SGD(0.4), 1))

    def gradients(fused: bool, dtype: torch.dtype) -> list[Tensor]:
        run = Compiled(chunk_gradient(learner.to(dtype).outer_loss), fused=fused)
        params, progress = channels_last(learner.meta_parameters()), torch.zeros((), dtype=dtype)
        tasks = (Episode(*(t.to(dtype) if t.is_floating_point() else t for t in task)) for task in episode.chunks(1))
        return [flatten(run(params, task, learner.carry.tree(), progress).grads) for task in tasks]

    exact = gradients(False, torch.float64)
    fused, graph = errors(gradients(True, torch.float32), exact), errors(gradients(False, torch.float32), exact)
    for quantile in (0.5, 0.99):
        assert fused.quantile(quantile) < 2 * graph.quantile(quantile)
