"""Two workers that are joined, against DDP and against the same mathematics written out for one process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.trainer.states import TrainerFn

from lightning_meta.data import SinusoidEpisodes
from lightning_meta.distributed import ArithmeticMean, JoinWeights, LocalWorkers, LossMedian, local_workers
from lightning_meta.episode import Episode, InnerBatches
from lightning_meta.errors import MetaLearningError
from lightning_meta.params import trainable
from tests.cli.helpers import refused, small
from tests.distributed.two_workers import EVERY, STEPS, TASKS, VALIDATION, adam_maml

Ended = dict[str, Any]


@contextlib.contextmanager
def started(arguments: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, with whatever it has started ended afterwards."""
    with output.open("w") as file:
        process = subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Ended, Ended]]:
    """What both workers ended with, by the name of the run."""
    folder = tmp_path_factory.mktemp("workers")
    arguments = [sys.executable, str(Path(__file__).with_name("two_workers.py")), str(folder)]
    with started(arguments, folder / "output") as process:
        assert process.wait(timeout=300) == 0, (folder / "output").read_text()
    names = {path.stem[:-2] for path in folder.glob("*.pt")}
    ended = {name: tuple(torch.load(folder / f"{name}_{rank}.pt") for rank in range(2)) for name in names}
    return ended | {"saved.ckpt": (torch.load(folder / "saved.ckpt", weights_only=True),) * 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["momentum", "reptile"])
def test_joining_at_every_step_by_the_mean_is_ddp(name: str, runs: dict[str, tuple[Ended, Ended]]) -> None:
    """With an outer SGD, its momentum and the carried moments of an inner Adam too."""
    for ddp, joined in zip(runs[f"{name}_ddp"], runs[f"{name}_joined"], strict=True):
        torch.testing.assert_close(joined["state"], ddp["state"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(joined["optimizer"], ddp["optimizer"], rtol=1e-9, atol=1e-12)
    first, second = runs[f"{name}_joined"]
    assert not torch.equal(first["weights"][0]["backbone.1.weight"], second["weights"][0]["backbone.1.weight"])


@pytest.mark.slow
def test_rare_joinings_equal_copies_that_are_averaged_by_hand(runs: dict[str, tuple[Ended, Ended]]) -> None:
    learners = [adam_maml().double(), adam_maml().double()]
    optimizers = [torch.optim.Adam(learner.parameters(), lr=0.02) for learner in learners]
    data = SinusoidEpisodes(meta_batch_size=TASKS)
    data.connect(InnerBatches(2), InnerBatches())
    history: list[list[float]] = [[], []]
    for step in range(1, STEPS + 1):
        for rank, (learner, optimizer) in enumerate(zip(learners, optimizers, strict=True)):
            numbers = torch.arange((step - 1) * TASKS + rank, step * TASKS, 2)
            episode = data.draw("train", numbers)
            params = {name: value.requires_grad_() for name, value in trainable(learner).items()}
            tasks = [Episode(*(tensor[i] for tensor in double(episode))) for i in range(len(numbers))]
            loss = sum(learner.outer_loss(params, task, {}, torch.zeros(()))[0] for task in tasks) / len(tasks)
            grads = torch.autograd.grad(loss, list(params.values()))
            for parameter, grad in zip(learner.parameters(), grads, strict=True):
                parameter.grad = grad
            optimizer.step()
            history[rank].append(loss.item())
        if step in (EVERY, VALIDATION, 2 * EVERY, STEPS):
            means = [sum(losses[-5:]) / len(losses[-5:]) for losses in history]
            weights = [means[1] / sum(means), means[0] / sum(means)]  # the other's part, of two workers
            copies = [
                [*learner.parameters(), *(value for state in optimizer.state.values() for value in state.values())]
                for learner, optimizer in zip(learners, optimizers, strict=True)
            ]
            with torch.no_grad():
                for one, other in zip(*copies, strict=True):
                    mean = weights[0] * one + weights[1] * other
                    one.copy_(mean)
                    other.copy_(mean)
    for ended in runs["rare"]:
        torch.testing.assert_close(ended["state"], dict(learners[0].state_dict()), rtol=1e-9, atol=1e-12)
        for place, state in enumerate(optimizers[0].state.values()):
            torch.testing.assert_close(ended["optimizer"][place], dict(state), rtol=1e-9, atol=1e-12)
        losses = ended["callbacks"]["JoinWeights"]["losses"]
        torch.testing.assert_close(
            losses, torch.tensor([row[-5:] for row in history], dtype=torch.float64), rtol=1e-9, atol=0
        )


def double(episode: Episode) -> list[torch.Tensor]:
    return [tensor.double() if tensor.is_floating_point() else tensor for tensor in episode]


@pytest.mark.slow
def test_no_worker_waits_for_another_between_joinings(runs: dict[str, tuple[Ended, Ended]]) -> None:
    """Not for finite gradients, not for the mean of a carry, not for what is logged, and not for Lightning's own."""
    for ended in runs["carry"]:
        assert ended["collectives"] == [ended["collectives"][0]] * (STEPS + 1)
    for ended in runs["momentum_joined"]:  # joined after every meta-step: losses are gathered, weights are summed
        first = ended["collectives"][0]
        assert ended["collectives"] == [first, *range(first, first + 2 * STEPS, 2)]


@pytest.mark.slow
def test_a_carry_is_joined_as_well(runs: dict[str, tuple[Ended, Ended]]) -> None:
    first, second = runs["carry"]
    carried = [name for name in first["state"] if name.startswith("carry.")]
    assert carried
    for name in first["state"]:
        last = [ended["weights"][-1][name] for ended in (first, second)]
        for ended in (first, second):
            torch.testing.assert_close(ended["state"][name], (last[0] + last[1]) / 2, rtol=1e-12, atol=0)
    assert any(not torch.equal(first["weights"][-1][name], second["weights"][-1][name]) for name in carried)


@pytest.mark.slow
def test_workers_without_optimizer_state_are_joined_without_it(runs: dict[str, tuple[Ended, Ended]]) -> None:
    first, second = runs["forgot"]
    torch.testing.assert_close(first["state"], second["state"], rtol=0, atol=0)
    for name in first["state"]:  # the weights were joined all the same
        assert not torch.equal(first["weights"][0][name], second["weights"][0][name])


@pytest.mark.slow
def test_a_checkpoint_between_joinings_holds_joined_weights(runs: dict[str, tuple[Ended, Ended]]) -> None:
    saved = runs["saved.ckpt"][0]
    first, second = (ended["weights"][0] for ended in runs["saved"])
    for name, tensor in saved["state_dict"].items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2, rtol=1e-12, atol=0)
        assert not torch.equal(first[name], second[name])
    assert saved["callbacks"]["JoinWeights"]["losses"].shape == (2, 1)
    after = [ended["optimizer"] for ended in runs["saved"]]
    torch.testing.assert_close(*after, rtol=0, atol=0)


def command(root: Path, steps: int, *more: str) -> list[str]:
    """A fit of two workers that checkpoints at every 50th meta-step."""
    arguments = [sys.executable, "-m", "lightning_meta", "fit", "--model=MAML", "--model.task_chunk=1"]
    arguments += [
        "--model.compile=false",
        "--model.backbone=lightning_meta.backbones.MLP",
        "--model.backbone.hidden=[8]",
    ]
    arguments += ["--model.loss=torch.nn.functional.mse_loss", "--model.inner.evaluation_steps=1"]
    arguments += ["--data=SinusoidEpisodes", "--data.meta_batch_size=4", "--data.validation_tasks=2"]
    arguments += ["--data.test_tasks=2", f"--trainer.default_root_dir={root}", f"--trainer.max_steps={steps}"]
    arguments += ["--trainer.accelerator=cpu", "--trainer.devices=2"]
    arguments += ["--trainer.enable_progress_bar=false", "--trainer.logger=false", "--trainer.val_check_interval=50"]
    arguments += ["--trainer.strategy={class_path: LocalWorkers}", "--trainer.callbacks=[{class_path: JoinWeights, "]
    arguments[-1] += "init_args: {generator: LossMovingAverage, every: 7}}]"
    return [
        *arguments,
        f"--checkpoint.dirpath={root}",
        "--checkpoint.save_top_k=-1",
        "--checkpoint.monitor=val_loss",
        "--checkpoint.mode=min",
        *more,
    ]


def end(root: Path, number: int, status: int, *more: str) -> tuple[int, str]:
    """The process and the last line of a run, one worker of which gets a signal after the checkpoint of step 100."""
    root.mkdir()
    output = root / "output"
    with started(command(root, 10**6, *more), output) as process:
        deadline = time.monotonic() + 200
        while not (root / "best-step=100.ckpt").exists() or not (root / "last.ckpt").exists():
            assert time.monotonic() < deadline and process.poll() is None, output.read_text()
            time.sleep(0.05)
        children = psutil.Process(process.pid).children()
        (worker,) = (child for child in children if "fit" in child.cmdline())
        worker.send_signal(number)
        assert process.wait(timeout=60) == status, output.read_text()
    said = output.read_text()
    assert "Traceback" not in said
    assert f"--ckpt_path={root / 'last.ckpt'}" in said.splitlines()[-1]
    return worker.pid, said.splitlines()[-1]


@pytest.mark.slow  # twice two processes import PyTorch and Lightning
def test_a_worker_that_dies_ends_the_run_and_costs_only_the_steps_since(tmp_path: Path) -> None:
    """And one that is asked to stop stops all of them, when they are joined."""
    root, resumed = tmp_path / "run", tmp_path / "resumed"
    worker, said = end(root, signal.SIGKILL, 2)
    assert f"error: worker 1 (process {worker}) was killed by signal 9" in said
    assert "go on from it with lightning-meta fit --model=MAML " in said
    assert torch.load(root / "last.ckpt", weights_only=True)["global_step"] % 50 == 0
    _, said = end(resumed, signal.SIGTERM, 143, f"--ckpt_path={root / 'best-step=50.ckpt'}")
    step = torch.load(resumed / "last.ckpt", weights_only=True)["global_step"]
    assert step % 7 == 0 or step % 50 == 0
    assert said.startswith(f"lightning-meta: stopped by SIGTERM after meta-step {step}, saved in {resumed}")
    assert not (resumed / "best-step=50.ckpt").exists()
    before = torch.load(root / "best-step=50.ckpt", weights_only=True)
    first, second = (torch.load(path / "best-step=100.ckpt", weights_only=True) for path in (root, resumed))
    assert not torch.equal(before["state_dict"]["backbone.1.weight"], first["state_dict"]["backbone.1.weight"])
    torch.testing.assert_close(dict(second["state_dict"]), dict(first["state_dict"]), rtol=0, atol=0)
    torch.testing.assert_close(second["optimizer_states"][0]["state"], first["optimizer_states"][0]["state"])
    assert second["SinusoidEpisodes"] == first["SinusoidEpisodes"]


@pytest.mark.slow
def test_a_run_that_waits_for_a_dead_worker_is_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a collective would wait for ever, as some on GPUs do."""
    ended: list[int] = []
    monkeypatch.setattr("lightning_meta.distributed.launcher._GRACE", 0.01)
    monkeypatch.setattr(os, "_exit", ended.append)
    launcher = local_workers._Launcher(LightningEnvironment(), 3, 1)
    dead, alive = (
        subprocess.Popen([sys.executable, "-S", "-c", code])
        for code in ("raise SystemExit(3)", "import time; time.sleep(60)")
    )
    launcher.procs = [alive, dead]
    launcher._trainer = trainer_of(checkpoint_callback=None, global_step=7)
    launcher._watch()
    assert ended == [2]
    assert f"worker 2 (process {dead.pid}) ended with status 3 at about meta-step 7" in capsys.readouterr().err
    assert alive.wait(timeout=10) == -signal.SIGKILL


def trainer_of(**more: Any) -> Any:
    """As much of a trainer as an error needs."""
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    return SimpleNamespace(**{"strategy": LocalWorkers(), "world_size": 2, "callbacks": [], "state": state} | more)


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"world_size": 1}, "JoinWeights with LossMedian joins .* but there is one: set trainer.devices"),
        ({"strategy": SingleDeviceStrategy()}, "but trainer.strategy is SingleDeviceStrategy"),
        ({"callbacks": [ModelCheckpoint(save_on_exception=True)]}, "set checkpoint.save_on_exception to false"),
        ({"callbacks": [OnExceptionCheckpoint(".")]}, "OnExceptionCheckpoint saves after an error"),
    ],
)
def test_what_cannot_be_joined_is_refused(trainer: dict[str, Any], said: str) -> None:
    with pytest.raises(MetaLearningError, match=said):
        JoinWeights(LossMedian()).setup(trainer_of(**trainer), adam_maml(), "fit")
    JoinWeights(LossMedian()).setup(trainer_of(**trainer), adam_maml(), "test")


def test_a_learner_that_optimises_by_itself_is_refused() -> None:
    learner = adam_maml()
    learner.automatic_optimization = False
    with pytest.raises(MetaLearningError, match="MAML optimises by itself"):
        JoinWeights(ArithmeticMean()).setup(trainer_of(), learner, "fit")


def test_workers_that_nothing_joins_are_refused() -> None:
    with pytest.raises(MetaLearningError, match="add JoinWeights with a generator to trainer.callbacks"):
        LocalWorkers().setup(trainer_of())


@pytest.mark.parametrize(
    ("every", "said"),
    [(0, "every of JoinWeights is 0, expected"), (1, "but trainer.strategy is SingleDeviceStrategy")],
)
def test_mistakes_end_in_one_error(every: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = f"{{class_path: JoinWeights, init_args: {{generator: LossMedian, every: {every}}}}}"
    assert said in refused(["fit", *small(tmp_path), f"--trainer.callbacks=[{callback}]"], capsys)
