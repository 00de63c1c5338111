"""Whole runs by every path of the engine: the same weights, and no step lost."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import Tensor

from lightning_meta.algorithms import FOMAML, MAML, Reptile
from lightning_meta.backbones import MLP
from lightning_meta.episode import Episode
from lightning_meta.inner import SGD, Adam, InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.learner.fusion import Fusion
from lightning_meta.mapping import chunk_gradient, missing_compiler
from lightning_meta.params import Params
from tests.helpers import glyph_network as network
from tests.helpers import glyphs, trainer


def weights(tmp_path: Path, algorithm: type[MetaLearner] = MAML, **settings: Any) -> dict[str, Tensor]:
    """After two meta-steps of four tasks, in double precision."""
    learner = algorithm(network(), InnerLoop(Adam(0.01, beta1=0.0, epsilon=1e-5), 2, 2), **settings)
    run = trainer(tmp_path, precision="64-true")
    run.fit(learner, glyphs(meta_batch_size=4))
    run.save_checkpoint(tmp_path / "last.ckpt")
    return dict(learner.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [MAML, FOMAML, Reptile])
def test_all_paths_train_the_same_weights(algorithm: type[MetaLearner], tmp_path: Path) -> None:
    expected = weights(tmp_path, algorithm, task_chunk=1, compile=False)
    for settings in ({"task_chunk": 4, "compile": False}, {"task_chunk": 3}, {"task_chunk": "auto"}):
        torch.testing.assert_close(weights(tmp_path, algorithm, **settings), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler())
def test_fused_kernels_train_the_same_weights(tmp_path: Path) -> None:
    trained = []
    for way in ("fused", "graph"):
        torch.manual_seed(0)
        learner = FOMAML(MLP(3, 784, [4]), InnerLoop(SGD(0.1), 1), compile=way)
        run = trainer(tmp_path, precision="64-true")
        run.fit(learner, glyphs(meta_batch_size=4))
        run.save_checkpoint(tmp_path / "last.ckpt")
        assert torch.load(tmp_path / "last.ckpt", weights_only=True)["fused"] is (way == "fused")
        trained.append(dict(learner.state_dict()))
    torch.testing.assert_close(*trained, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("fused", [True, False])
def test_the_way_that_is_not_taken_holds_no_graphs(
    fused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU they hold the memory of a whole meta-step."""

    def settle(self: Fusion, module: Any, draws: Any, time_graph: Any, run_fused: Any, *_: Any) -> None:
        time_graph()
        run_fused()
        self.settled, self.chosen = True, fused

    class Held(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            ((graph, kernels),) = learner.task_map._gradients.values()
            assert [bool(graph._graphs), bool(kernels._graphs)] == [not fused, fused]

    monkeypatch.setattr(Fusion, "settle", settle)
    monkeypatch.setattr("lightning_meta.mapping.graph.fuse", lambda graph, leaves: graph)
    learner = FOMAML(MLP(3, 784, [4]), InnerLoop(SGD(0.1), 1), task_chunk=4)
    trainer(tmp_path, callbacks=[Held()]).fit(learner, glyphs(meta_batch_size=4))


@pytest.mark.slow
def test_a_checkpoint_keeps_the_chunk_that_was_chosen(tmp_path: Path) -> None:
    weights(tmp_path)
    path = tmp_path / "last.ckpt"
    chosen = torch.load(path, weights_only=True)["task_chunk"]
    assert chosen in (1, 4)
    loaded = MAML.load_from_checkpoint(path, weights_only=True, backbone=network())
    assert loaded.task_map.chunk.size == chosen
    given = MAML.load_from_checkpoint(path, weights_only=True, backbone=network(), task_chunk=2)
    assert given.task_map.chunk.size == 2


@pytest.mark.slow
def test_no_step_is_lost_when_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = weights(tmp_path, task_chunk=4, compile=False)

    def with_little_memory(outer_loss: Any, carry_per_task: bool) -> Any:
        gradient = chunk_gradient(outer_loss, carry_per_task)

        def run(params: Params, tasks: Episode, *rest: Any) -> Any:
            if tasks.tasks > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return gradient(params, tasks, *rest)

        return run

    monkeypatch.setattr("lightning_meta.learner.task_map.chunk_gradient", with_little_memory)
    with pytest.warns(UserWarning, match="repeated with 2, which stays") as record:
        found = weights(tmp_path, task_chunk=4, compile=False)
    assert len([warning for warning in record if "memory ran out" in str(warning.message)]) == 1
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("serial", "steps"), [(True, 16), (False, 4)])
def test_serial_tasks_hand_their_moments_on_in_a_run(serial: bool, steps: int, tmp_path: Path) -> None:
    """Two meta-steps of four tasks with two inner steps each: Adam has counted all of them, or those of one task."""
    learner = Reptile(network(), InnerLoop(Adam(0.01, beta1=0.0), 2, 2), serial=serial)
    trainer(tmp_path).fit(learner, glyphs(meta_batch_size=4))
    assert learner.carry.tree().steps == steps
