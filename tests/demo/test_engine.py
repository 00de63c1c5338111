"""The page's engine in plain JavaScript against the learners of the package, run by node."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms import FOMAML, MAML, PrototypicalNetworks, Reptile
from lightning_meta.backbones import MLP, Conv4
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.episode import Episode
from lightning_meta.inner import SGD, Adam, InnerLoop
from lightning_meta.inner.optimizers import AdamState
from lightning_meta.learner import MetaLearner
from tests.demo.engine import run, save


def batch(x: Tensor) -> dict[str, Any]:
    """Inputs as the engine takes them, channels last."""
    shape = x.permute(0, 2, 3, 1) if x.dim() == 4 else x.view(-1, 1, 1, 1)
    return {"data": shape.flatten().tolist(), "shape": list(shape.shape)}


def interleaved(labels: list[int], steps: int, size: int | None) -> Tensor:
    """The rows of every inner step: dealt out in turn, the first of each class, then the second of each, ..."""
    if size is None or size >= len(labels):
        return torch.arange(len(labels)).expand(steps, -1)
    shots = [labels[:row].count(label) for row, label in enumerate(labels)]
    rows = sorted(range(len(labels)), key=lambda row: (shots[row], labels[row]))
    return torch.tensor([[rows[(step * size + place) % len(rows)] for place in range(size)] for step in range(steps)])


def task(labels: list[int], queries: int, loop: InnerLoop, image_size: int = 8, channels: int = 1) -> Episode:
    """Random pictures with these labels."""
    torch.manual_seed(1)
    shape = channels, image_size, image_size
    order = interleaved(labels, loop.evaluation_steps, loop.evaluation_batch_size)
    support_y, classes = torch.tensor(labels), torch.arange(max(labels) + 1)
    support_x, query_x = torch.randn(len(labels), *shape), torch.randn(queries, *shape)
    return Episode(support_x, support_y, query_x, support_y[:queries], order, torch.tensor(0), classes)


SMALL = {"outputs": 3, "filters": 4, "image_size": 8}


def network(**settings: Any) -> Conv4:
    torch.manual_seed(0)
    backbone = Conv4(**SMALL | settings)
    for parameter in backbone.parameters():  # so that norms scale and shift
        parameter.data += 0.3 * torch.randn_like(parameter)
    return backbone


def compare(
    learner: MetaLearner, episode: Episode, path: Path, classes: int = 3, atol: float = 1e-9,
    dtype: torch.dtype | None = None, **settings: Any,
) -> None:  # fmt: skip
    """The engine's outputs are those of `predictions`, after every step."""
    predictions = learner.predictions(learner.meta_parameters(), episode, learner.carry.tree())
    answer = run(
        do="adapt", checkpoint=str(save(learner, path, SMALL | settings, dtype)), support=batch(episode.support_x),
        targets=episode.support_y.tolist(), classes=classes, queries=batch(episode.query_x),
    )  # fmt: skip
    for found, expected in ((answer["support"], predictions.support), (answer["queries"], predictions[2])):
        torch.testing.assert_close(torch.tensor(found), expected[..., :classes], atol=atol, rtol=atol)
    assert answer["head"] == "own"


@pytest.mark.usefixtures("float64")
def test_weights_in_half_precision_are_read(tmp_path: Path) -> None:
    loop = InnerLoop(SGD(lr=0.1), evaluation_steps=2)
    learner = MAML(network(), loop)
    for parameter in learner.parameters():
        parameter.data = parameter.data.bfloat16().double()
    compare(learner, task([0, 1, 2], 2, loop), tmp_path / "half.safetensors", dtype=torch.bfloat16)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "settings",
    [
        {"head": "mean"},
        {"head": "flatten", "image_size": 20},
        {"head": "flatten", "channels": 3, "downsample": "max_pool", "image_size": 18},
        {"head": "flatten", "downsample": "max_pool", "ceil_mode": True, "image_size": 18},
    ],
    ids=["mean", "flatten", "max_pool", "ceil_mode"],
)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_maml_adapts_in_the_engine_as_in_python(settings: dict[str, Any], reduction: Any, tmp_path: Path) -> None:
    loop = InnerLoop(SGD(0.1), evaluation_steps=2, reduction=reduction)
    learner = (MAML if reduction == "sum" else FOMAML)(network(**settings), loop)
    size, channels = settings.get("image_size", 8), settings.get("channels", 1)
    compare(learner, task([0, 1, 1, 2], 2, loop, size, channels), tmp_path / "maml.safetensors", **settings)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_reptile_starts_from_carried_moments_and_deals_out_the_rows(beta1: float, tmp_path: Path) -> None:
    loop = InnerLoop(Adam(0.01, beta1=beta1), evaluation_steps=4, evaluation_batch_size=3)
    learner = Reptile(network(), loop)
    state: AdamState = learner.carry.tree()
    moments = [{name: torch.rand_like(value) for name, value in part.items()} for part in (state.mu, state.nu)]
    learner.carry.assign(AdamState(torch.tensor(5.0), *moments))
    # Too few rows for all classes in a step, so that an order without turns would be seen.
    compare(learner, task([0, 0, 1, 1, 1, 2, 2], 2, loop), tmp_path / "reptile.safetensors")


@pytest.mark.usefixtures("float64")
def test_reptile_without_carried_moments_starts_afresh(tmp_path: Path) -> None:
    loop = InnerLoop(Adam(0.01), evaluation_steps=2)
    learner = Reptile(network(), loop, carry_moments=False)
    compare(learner, task([0, 1, 2], 1, loop), tmp_path / "reptile.safetensors")


@pytest.mark.usefixtures("float64")
def test_prototypical_networks_compare_in_the_engine_as_in_python(tmp_path: Path) -> None:
    learner = PrototypicalNetworks(network())
    compare(learner, task([0, 0, 1, 2], 3, learner.inner), tmp_path / "prototypical.safetensors")


@pytest.mark.usefixtures("float64")
def test_fewer_classes_leave_the_other_outputs_out_and_the_inner_loss_whole(tmp_path: Path) -> None:
    loop = InnerLoop(SGD(0.1), evaluation_steps=2)
    learner = MAML(network(outputs=5), loop)
    compare(learner, task([0, 1, 1], 2, loop), tmp_path / "maml.safetensors", classes=2, outputs=5)


@pytest.mark.usefixtures("float64")
def test_a_summed_loss_keeps_the_size_that_it_had_in_training(tmp_path: Path) -> None:
    loop = InnerLoop(SGD(0.1), evaluation_steps=2, reduction="sum")
    episode = task([0, 1, 2], 2, loop)
    # Trained on twelve rows, given three: four times the loss is four times the rate.
    predictions = MAML(network(), InnerLoop(SGD(0.4), evaluation_steps=2, reduction="sum")).eval()
    expected = predictions.predictions(predictions.meta_parameters(), episode, {})
    path = str(save(MAML(network(), loop), tmp_path / "maml.safetensors", SMALL, ways=3, shots=4))
    answer = run(
        do="adapt", checkpoint=path, support=batch(episode.support_x), targets=[0, 1, 2], classes=3,
        queries=batch(episode.query_x),
    )  # fmt: skip
    torch.testing.assert_close(torch.tensor(answer["queries"]), expected[2], atol=1e-9, rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_more_classes_are_told_apart_by_the_means_of_their_features(tmp_path: Path) -> None:
    loop = InnerLoop(SGD(0.1), evaluation_steps=2)
    learner, episode = MAML(network(outputs=2), loop), task([0, 0, 1, 2], 2, loop)
    answer = run(
        do="adapt", checkpoint=str(save(learner, tmp_path / "maml.safetensors", SMALL | {"outputs": 2})),
        support=batch(episode.support_x), targets=[0, 0, 1, 2], classes=3, queries=batch(episode.query_x),
    )  # fmt: skip
    weights = dict(learner.backbone.named_parameters())
    support = learner.head.features(weights, episode.support_x)
    means = torch.stack([support[:2].mean(0), support[2], support[3]])
    beside = [torch.cat([episode.support_x, query[None]]) for query in episode.query_x]
    queries = torch.stack([learner.head.features(weights, rows)[-1] for rows in beside])
    expected = (-(torch.cdist(queries, means) ** 2)).softmax(-1)
    assert answer["head"] == "prototypes"
    (found,) = torch.tensor(answer["queries"]).softmax(-1)
    torch.testing.assert_close(found, expected.detach(), atol=1e-9, rtol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("activation", "norm"), [(nn.ReLU, False), (nn.Tanh, False), (nn.ReLU, True)])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_curves_are_fitted_in_the_engine_as_in_python(
    activation: type[nn.Module], norm: bool, reduction: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    loop = InnerLoop(SGD(0.05), evaluation_steps=3, evaluation_batch_size=3, reduction=reduction)
    learner = MAML(MLP(1, 1, (6, 5), activation, norm), loop, loss=functional.mse_loss)
    described = {"hidden": [6, 5], "activation": f"torch.nn.{activation.__name__}", "batch_norm": norm}
    x, y, grid = torch.randn(5, 1), torch.randn(5, 1), torch.randn(4, 1)
    episode = Episode(x, y, grid, grid, interleaved([0] * 5, 3, 3), torch.tensor(0), torch.arange(0))
    predictions = learner.predictions(learner.meta_parameters(), episode, {})
    answer = run(
        do="adapt", checkpoint=str(save(learner, tmp_path / "curve.safetensors", described)), support=batch(x),
        targets=y[:, 0].tolist(), classes=None, queries=batch(grid),
    )  # fmt: skip
    torch.testing.assert_close(torch.tensor(answer["queries"]), predictions[2], atol=1e-9, rtol=1e-9)


def test_vectors_of_float32_multiply_matrices_of_any_shape() -> None:
    torch.manual_seed(0)
    # The memory that is used again holds what the product before left there.
    shapes = [(9, 8, 12), (7, 5, 10), (1, 1, 1), (40, 70, 200), (3, 4, 5)]
    factors = [(torch.randn(rows, inner), torch.randn(columns, inner)) for rows, columns, inner in shapes]
    found = run(do="multiply", factors=[[left.tolist(), right.tolist()] for left, right in factors])
    for values, (left, right) in zip(found, factors, strict=True):
        product = left @ right.T
        torch.testing.assert_close(torch.tensor(values).view_as(product), product, atol=1e-4, rtol=1e-5)


def test_a_network_of_full_size_adapts_in_the_engine_as_in_python(tmp_path: Path) -> None:
    size = {"filters": 64, "image_size": 28}
    loop = InnerLoop(SGD(0.1), evaluation_steps=2)
    compare(MAML(network(**size), loop), task([0, 1, 2], 1, loop, 28), tmp_path / "m.safetensors", atol=1e-4, **size)


def picture(mode: str, width: int, height: int, light: bool = False) -> Image.Image:
    """A blurred disc of ink and noise, on a border of one brightness."""
    random = np.random.default_rng(0)
    shape = (height, width) if mode == "L" else (height, width, 3)
    values = random.integers(0, 256, shape)
    values[:2] = values[-2:] = values[:, :2] = values[:, -2:] = 20 if light else 240
    return Image.fromarray(values.astype(np.uint8))


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("L", {"channels": 1, "background": 1.0, "invert": True}),
    ("RGB", {"channels": 1, "background": 0.0, "threshold": 0.4}),
    ("L", {"channels": 3, "mean": (0.4, 0.5, 0.6), "deviation": (0.2, 0.3, 0.25)}),
    ("RGB", {"channels": 3, "background": 1.0}),
]


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize("light", [False, True])
def test_pictures_become_the_same_inputs(resample: Any, light: bool) -> None:
    jobs, expected, turned = [], [], []
    for width, height in [(37, 37), (28, 28), (11, 17), (53, 32)]:
        for mode, settings in KINDS:
            preprocessing = Preprocessing(side=28, resample=resample, **settings)
            given = picture(mode, width, height, light)
            shape = {"width": width, "height": height, "channels": len(given.getbands())}
            jobs.append({"settings": preprocessing.plain(), "picture": shape | {"data": list(given.tobytes())}})
            pixels = torch.from_numpy(preprocessing.pixels(given))[None]
            expected.append(preprocessing.inputs(pixels)[0].permute(1, 2, 0).flatten())
            turned.append(preprocessing.is_reversed(given))
    answer = run(do="prepare", pictures=jobs)
    assert [found["reversed"] for found in answer] == turned
    assert len(set(turned)) == 2
    for found, inputs in zip(answer, expected, strict=True):
        torch.testing.assert_close(torch.tensor(found["data"], dtype=torch.float32), inputs, atol=1e-6, rtol=0)


STROKES = [[[0.1, 0.2], [0.3, 0.25], [0.5, 0.6]], [[0.2, 0.5], [0.25, 0.5]], [[0.4, 0.2]]]


def test_strokes_become_a_picture_as_large_and_thick_as_those_of_omniglot() -> None:
    pixels = np.array(run(do="draw", strokes=STROKES)).reshape(105, 105)
    along = np.linspace(0, 1, 200)[:, None]
    ends = [(stroke[max(place - 1, 0)], stroke[place]) for stroke in STROKES for place in range(len(stroke))]
    touched = np.concatenate([np.array(start) + along * np.subtract(end, start) for start, end in ends])
    # The larger extent of the points, .4 of the canvas, becomes 62.5 pixels, and (.3, .4), their middle, the picture's.
    touched = 52.5 + (touched - [0.3, 0.4]) * 62.5 / 0.4
    rows, columns = np.mgrid[:105, :105] + 0.5
    distance = np.hypot(rows[..., None] - touched[:, 1], columns[..., None] - touched[:, 0]).min(-1)
    assert set(np.unique(pixels)) == {0, 255}
    clear = np.abs(distance - 2.5) > 0.01
    np.testing.assert_array_equal((pixels == 0)[clear], (distance < 2.5)[clear])
