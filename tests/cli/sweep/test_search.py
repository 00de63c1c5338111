"""A search by Optuna, whose trials train nothing."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from lightning_meta.cli.sweep.plan import Sweep
from lightning_meta.cli.sweep.space import Parameter, Search, read_search
from lightning_meta.errors import MetaLearningError
from tests.cli.sweep.fakes import FakeRun, fake_run

optuna = pytest.importorskip("optuna", reason="Optuna is an extra of this package")

from lightning_meta.cli.sweep import search as search_module  # noqa: E402
from lightning_meta.cli.sweep.search import Searcher  # noqa: E402


class Trial(FakeRun):
    """A run whose validations follow its parameter x."""

    def __init__(self, arguments: list[str], own: list[str]) -> None:
        super().__init__([*arguments, f"--values={self.values(own)}"], own)

    @staticmethod
    def values(own: list[str]) -> str:
        x = float(own[0].partition("=")[2])
        return f"{x / 2}/{x}"


@pytest.fixture
def searcher(fakes: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a searcher of some trials of x between 0 and 1."""
    monkeypatch.setattr(search_module, "Run", Trial)

    def make(jobs: int = 1, kind: type[Trial] = Trial, **changes: Any) -> Searcher:
        monkeypatch.setattr(search_module, "Run", kind)
        search = Search(**{"parameters": {"x": Parameter(0.0, 1.0)}, "trials": 4, "pruner": "none"} | changes)
        sweep = Sweep(Path("sweep.yaml"), "fit", fakes[1:], [], search=search)
        return Searcher(sweep, fake_run(fakes, "--x=0.0"), jobs, 0, "again")

    return make


def states(searcher: Searcher) -> list[str]:
    return [trial.state.name for trial in searcher.open().trials]


@pytest.mark.parametrize(("direction", "best"), [("maximize", max), ("minimize", min)])
def test_the_best_trial_is_a_command(
    direction: str, best: Any, searcher: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    search = searcher(direction=direction)
    assert search.work() == 0
    trials = search.open().trials
    # The best of its validations, x / 2 and x.
    assert [trial.value for trial in trials] == [
        pytest.approx(best(trial.params["x"] / 2, trial.params["x"])) for trial in trials
    ]
    value = best(trials, key=lambda trial: trial.value).params["x"]
    printed = capsys.readouterr().out
    assert "4 of 4 trials, 0 of them ended early" in printed
    assert printed.splitlines()[-1] == f"lightning-meta fit {search.sweep.common[0]} --experiment=e --x={value}"


def test_a_search_goes_on_with_other_trials(searcher: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert searcher(trials=2).work() == 0
    search = searcher(trials=4, jobs=2)
    assert search.work() == 0
    assert len({trial.params["x"] for trial in search.open().trials}) == 4
    capsys.readouterr()
    assert search.work() == 0
    assert search.dry_run() == 0
    assert "trial" not in capsys.readouterr().out.replace("trials", "")
    assert len(searcher(direction="minimize").open().trials) == 0  # another search


def test_a_trial_that_falls_behind_ends_early(searcher: Any) -> None:
    class Slow(Trial):
        @staticmethod
        def values(own: list[str]) -> str:
            x = float(own[0].partition("=")[2])
            return f"{x}/{x}/{x}/{x}"

    search = searcher(kind=Slow, pruner="median", trials=8, jobs=2)
    assert search.work() == 0
    trials = search.open().trials
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    values = sorted(trial.params["x"] for trial in trials)
    assert pruned
    assert all(trial.params["x"] <= values[len(values) // 2] for trial in pruned)
    folders = [Path(search.first.experiment, f"x={trial.params['x']},seed=0") for trial in pruned]
    assert all((folder / "stopped").exists() and not (folder / "done").exists() for folder in folders)


def test_an_interrupted_trial_comes_again(searcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    search = searcher(trials=2)
    report = search._report
    calls: list[int] = []

    def interrupted(study: Any, worker: Any) -> None:
        report(study, worker)
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(search, "_report", interrupted)
    assert search.work() == 128 + signal.SIGTERM
    first = search.open().trials[0].params
    assert states(search) == ["FAIL", "WAITING"]
    # A process that is killed tells nothing.
    search.open().ask({"x": search_module._distribution(search.search.parameters["x"])})
    assert states(search) == ["FAIL", "RUNNING"]
    again = searcher(trials=2)
    assert again.work() == 0
    complete = [trial for trial in again.open().trials if trial.state.name == "COMPLETE"]
    assert len(complete) == 2
    assert first in [trial.params for trial in complete]


def test_trials_that_fail_count_and_say_so(searcher: Any, capsys: pytest.CaptureFixture[str]) -> None:
    class Failing(Trial):
        @staticmethod
        def values(own: list[str]) -> str:
            return "nan/nan"

    search = searcher(kind=Failing, trials=2)
    assert search.work() == 0
    assert states(search) == ["FAIL", "FAIL"]
    assert "trial 0: diverged, see " in capsys.readouterr().out


def test_a_metric_that_nothing_logs_is_refused_after_the_first_trial(searcher: Any) -> None:
    search = searcher(metric="val_acc")
    with pytest.raises(MetaLearningError, match=r"search.metric is val_acc, but the validations .* val_accuracy"):
        search.work()
    assert states(search) == ["FAIL"]


def test_one_process_is_at_a_search(searcher: Any) -> None:
    search = searcher()
    with search.lock(search.open()), pytest.raises(MetaLearningError, match="another process is at this search"):
        search.work()


def test_parameters_are_those_of_optuna() -> None:
    content = {
        "parameters": {
            "a": {"low": "1e-4", "high": 1, "log": True},
            "b": {"low": 1, "high": 5},
            "c": {"choices": ["x", 3, True]},
        }
    }
    kinds = optuna.distributions
    found = {name: search_module._distribution(one) for name, one in read_search(Path("a"), content).parameters.items()}
    assert found == {
        "a": kinds.FloatDistribution(1e-4, 1, log=True),
        "b": kinds.IntDistribution(1, 5),
        "c": kinds.CategoricalDistribution(["x", 3, True]),
    }
    assert json.dumps(read_search(Path("a"), content).corners()) == json.dumps(
        [["--a=0.0001", "--b=1", "--c=x"], ["--a=1", "--b=5", "--c=true"]]
    )
