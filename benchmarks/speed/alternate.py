"""The turns of the contenders, in the pauses of a fit of ours."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from cases import QUICK, Case, learner_of
from contenders import CONTENDERS, Problem, Step, UnavailableError, build, exactly, our_gradient, relative_error
from floor import operations
from instruments import Stopwatch, Turn, convolution_share, peak_memory, synchronise, time_of
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params, map_params

RUN, OURS = "lightning_meta, whole run", "lightning_meta, computation"
FILES, MEMORY = "learn2learn, whole run", "learn2learn in memory, whole run"
LOOP, VMAP = "learn2learn, computation", "torch.func.vmap"
PATIENCE = 4.0  # seconds of one contender in a case, after which it gives up its other turns

Errors = dict[tuple[Case, str], float]


class Alternate(Callback):
    """Interrupts a fit every few meta-steps, to let the other contenders have their turn."""

    def __init__(self, case: Case, rounds: int, seconds: float, root: str | None, errors: Errors) -> None:
        self.case, self.rounds, self.seconds, self.root = case, rounds, seconds, root
        self.errors = errors  # of gradients in float64; those that are known are not measured again
        self.turns: dict[str, list[Turn]] = defaultdict(list)
        self.steps: dict[str, Step] = {}
        self.spent: dict[str, float] = defaultdict(float)  # seconds
        self.rounding: dict[str, float] = {}  # of gradients in float32
        self.remarks: dict[str, str] = {}  # why a contender does not run
        self.memory: dict[str, float] = {}  # MiB at the peak of one meta-step
        self.operations = 0
        self.convolution_share = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, MetaLearner)
        case, data, device = self.case, trainer.datamodule, pl_module.device  # type: ignore[attr-defined]
        episode = type(data.draw("train", torch.arange(1)))(
            *(tensor.to(device) for tensor in data.draw("train", torch.arange(case.tasks)))
        )
        twin = learner_of(case).to(device)  # without the trainer, so that it can be copied
        twin.load_state_dict(pl_module.state_dict())
        problem, optimizer = Problem(case, twin, episode), trainer.optimizers[0]
        parameters = dict(pl_module.named_parameters())

        def compute() -> None:
            for name, grad in pl_module.task_map.meta_gradient(episode, 0.0).grads.items():
                parameters[name].grad = grad.detach()
            optimizer.step()

        self.operations = operations(twin, episode)
        self._add_runs(problem, data)
        self.steps[OURS] = compute
        self._add_contenders(problem, compute, lambda: map_params(lambda p: p.grad.clone(), parameters))
        for name in (OURS, LOOP):
            if name in self.steps:
                self.memory[name] = peak_memory(self.steps[name], device)
        self.convolution_share = convolution_share(compute)
        self.ours, self.skip = 0, True

    def _add_runs(self, problem: Problem, data: Any) -> None:
        """learn2learn from its samplers to its optimizer."""
        try:
            from contenders import learn2learn_examples as examples
        except ImportError as error:
            self.remarks[FILES] = f"not installed: {error.name}"
            return
        case = self.case
        images = data.shots_in("train") + (0 if case.algorithm == "Reptile" else data.queries_in("train"))
        samplers = {MEMORY: examples.in_memory(data, case.ways, images)}
        if self.root and case.backbone == "omniglot":
            samplers[FILES] = examples.their_benchmark(self.root, case.ways, images)
        for name, sample in samplers.items():
            self.steps[name] = examples.end_to_end(problem, sample)
            self.steps[name]()  # the first fills caches

    def _add_contenders(self, problem: Problem, compute: Step, our_last: Callable[[], Params]) -> None:
        """Those that compute on the batch of the problem, once their gradients are compared with ours in float64."""
        checked = self.case in QUICK
        small = exactly(problem, 2)
        references = {}
        if checked:
            serials = {False, self.case.algorithm == "Reptile"}
            references = {serial: [our_gradient(p, serial) for p in (small, exactly(problem))] for serial in serials}
        compute()  # the first traces
        if checked:
            self.rounding[OURS] = relative_error(problem, our_last(), references[False][1])
        for name in CONTENDERS if checked else (LOOP, VMAP):
            try:
                contender = build(name, problem)
                first = time_of(contender.step, 0.0, problem.learner.device)  # warms up
                if first.cpu > 2 * PATIENCE:  # too slow for another
                    self.turns[name], self.spent[name] = [first], first.wall
                if checked and (self.case, name) not in self.errors:
                    exact = build(name, small)
                    exact.step()
                    self.errors[self.case, name] = relative_error(small, exact.gradient(), references[exact.serial][0])
                if checked:
                    self.rounding[name] = relative_error(problem, contender.gradient(), references[contender.serial][1])
                self.steps[name] = contender.step
            except UnavailableError as reason:
                self.remarks[name] = str(reason)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        synchronise(pl_module.device)
        if self.skip:  # a step after a pause begins before it
            self.skip, self.ours, self.watch = False, 0, Stopwatch()
            return
        self.ours += 1
        if self.watch.seconds() < self.seconds:
            return
        self.turns[RUN].append(self.watch.turn(self.ours))
        for name, step in self.steps.items():
            begun = Stopwatch()
            if self.spent[name] < PATIENCE:
                self.turns[name].append(time_of(step, self.seconds, pl_module.device))
                self.spent[name] += begun.seconds()
        self.skip = True
        trainer.should_stop = len(self.turns[RUN]) == self.rounds
