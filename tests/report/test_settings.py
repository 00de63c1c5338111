"""Settings by name, what tells runs apart, and sweeps."""

from typing import Any

import pytest

from lightning_meta.report.settings import Sweep, describe, flatten, identity, shown, sweeps, varying

SGD = {"class_path": "lightning_meta.inner.SGD", "init_args": {"lr": 0.4}}
ADAM = {"class_path": "lightning_meta.inner.Adam", "init_args": {"lr": 0.001, "beta1": 0.0}}


def settings(optimizer: Any = SGD, steps: int = 1, **top: Any) -> dict[str, Any]:
    config = {
        "model": {"class_path": "MAML", "init_args": {"inner": {"optimizer": optimizer, "steps": steps}}},
        "data": {"class_path": "OmniglotEpisodes", "init_args": {"root": top.pop("root", "x"), "ways": 5}},
    }
    return flatten(config | top)


def sgd(lr: float) -> dict[str, Any]:
    return {"class_path": "lightning_meta.inner.SGD", "init_args": {"lr": lr}}


def test_names_are_those_of_the_command_line() -> None:
    assert settings() == {
        "data": "OmniglotEpisodes",
        "data.ways": 5,
        "model": "MAML",
        "model.inner.optimizer": "SGD",
        "model.inner.optimizer.lr": 0.4,
        "model.inner.steps": 1,
    }


def test_where_and_how_a_run_is_executed_is_no_setting() -> None:
    executed = {"default_root_dir": "y", "accelerator": "gpu", "devices": 2, "logger": {"class_path": "CSVLogger"}}
    other = settings(
        root="elsewhere",
        seed_everything=5,
        experiment="e",
        trainer=executed,
        checkpoint={"filename": "f", "save_top_k": 5},
    )
    assert other == settings()
    assert settings(trainer={"precision": "bf16-mixed"}) != settings()


@pytest.mark.parametrize(
    "trivial",
    [
        {"trainer": {"enable_progress_bar": False}},
        {"trainer": {"enable_model_summary": True, "log_every_n_steps": 1, "num_sanity_val_steps": 2}},
        {"verbose": True},
        {"checkpoint": {"verbose": True, "save_top_k": 3}},
        {"trainer": {"callbacks": [{"class_path": "pytorch_lightning.callbacks.RichProgressBar"}]}},
        {"trainer": {"callbacks": ["LearningRateMonitor", {"class_path": "lightning_meta.callbacks.Figures"}]}},
        {"trainer": {"callbacks": {"class_path": "Timer", "init_args": {"verbose": True}}}},
    ],
)
def test_what_shows_and_saves_is_no_setting(trivial: dict[str, Any]) -> None:
    silent = {"trainer": {"callbacks": None}} if "callbacks" in trivial.get("trainer", {}) else {}
    assert settings(**trivial) == settings(**silent)


def test_no_callbacks_are_written_in_several_ways() -> None:
    """A run that names none writes null, and one that was given an empty list writes that."""
    for empty in ([], None, [None], ["Timer"]):
        assert settings(trainer={"callbacks": empty})["trainer.callbacks"] is None
    assert settings(trainer={"callbacks": []}) == settings(trainer={"callbacks": None})


def test_a_callback_that_acts_is_a_setting() -> None:
    acting = {"class_path": "WeightAveraging", "init_args": {"decay": 0.9}}
    both = settings(trainer={"callbacks": ["RichProgressBar", acting]})
    assert both == settings(trainer={"callbacks": [acting]}) != settings(trainer={"callbacks": None})


def test_what_an_optimizer_says_is_no_setting() -> None:
    loud = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1, "fused": True, "foreach": False}}
    quiet = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}}
    assert settings(loud) == settings(quiet) != settings(SGD)


def test_what_tells_runs_apart() -> None:
    runs = [settings(SGD), settings(sgd(0.1)), settings(ADAM)]
    names = varying(runs)
    assert names == ["model.inner.optimizer", "model.inner.optimizer.lr"]  # SGD lacks beta1, which says nothing more
    assert describe(runs[2], names) == "model.inner.optimizer=Adam, model.inner.optimizer.lr=0.001"
    assert varying([settings(), settings()]) == []
    assert varying([settings(), settings(trainer={"precision": "16"})]) == ["trainer.precision"]


def test_a_sweep_differs_in_one_setting() -> None:
    runs = [settings(sgd(0.1)), settings(sgd(0.4)), settings(sgd(0.4), steps=5), settings(sgd(0.1), steps=7, seed=1)]
    assert sweeps(runs) == [
        Sweep("model.inner.optimizer.lr", [0.1, 0.4], [0, 1]),
        Sweep("model.inner.steps", [1, 5], [1, 2]),
    ]
    assert sweeps([settings(sgd(0.1), steps=1), settings(sgd(0.4), steps=5)]) == []


def test_an_object_is_swept_with_its_arguments() -> None:
    runs = [settings(SGD), settings(ADAM)]
    classes = ["SGD", "Adam"]
    assert sweeps(runs) == [Sweep("model.inner.optimizer", classes, [0, 1])]
    (of_class, of_rate) = sweeps([*runs, settings(sgd(0.1))])
    assert of_class.values == [
        "SGD (model.inner.optimizer.lr=0.4)", "Adam", "SGD (model.inner.optimizer.lr=0.1)",
    ]  # fmt: skip
    assert of_rate == Sweep("model.inner.optimizer.lr", [0.4, 0.1], [0, 2])
    scheduled = (
        settings(),
        settings() | {"model.lr_scheduler": "torch.optim.PolynomialLR", "model.lr_scheduler.power": 1},
    )
    assert [sweep.name for sweep in sweeps([scheduled[0] | {"model.lr_scheduler": None}, scheduled[1]])] == [
        "model.lr_scheduler"
    ]


def test_identity_leaves_out_a_setting_and_what_is_below() -> None:
    assert identity(settings(SGD), without="model.inner.optimizer") == identity(settings(ADAM), "model.inner.optimizer")
    assert identity(settings(SGD), without="model.inner.opt") != identity(settings(ADAM), without="model.inner.opt")


def test_values_as_a_person_writes_them() -> None:
    values = [None, True, 0.05, 5, "bf16-mixed", "torch.nn.Tanh", [64, 64], [{"class_path": "a.EMA", "init_args": {}}]]
    assert [shown(value) for value in values] == [
        "null", "true", "0.05", "5", "bf16-mixed", "Tanh", "[64, 64]", "[EMA]",
    ]  # fmt: skip
