"""The settings of runs, and what tells runs of one experiment apart."""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Settings = dict[str, Any]  # name on the command line -> number, text or list

LENGTH = "trainer.max_steps"
INTERVAL = "trainer.val_check_interval"  # as long as the run allows
TEST_TASKS = "data.test_tasks"  # how exactly a run is measured, which the table shows, and not what it is

# What says where, on what and how loudly a run is executed, and not what is learned; each with all that is below it.
TRIVIAL = (
    "experiment", "run", "seed_everything", "ckpt_path", "weights_only", "ensemble", "return_predictions",
    "data.root", "data.cache_dir", "data.cache_device", "data.num_workers", "data.download", "data.seed",
    "model.task_chunk", "model.compile",
    "trainer.accelerator", "trainer.strategy", "trainer.devices", "trainer.num_nodes", "trainer.max_time",
    "trainer.default_root_dir", "trainer.logger", "trainer.log_every_n_steps", "trainer.profiler", "trainer.barebones",
    "trainer.enable_checkpointing", "trainer.enable_progress_bar", "trainer.enable_model_summary",
    "trainer.num_sanity_val_steps", "trainer.enable_autolog_hparams", "trainer.model_registry",
    "trainer.deterministic", "trainer.benchmark", "trainer.detect_anomaly", "trainer.inference_mode",
    "trainer.use_distributed_sampler",
    "checkpoint.dirpath", "checkpoint.filename", "checkpoint.verbose", "checkpoint.save_last", "checkpoint.save_top_k",
    "checkpoint.save_on_exception", "checkpoint.save_weights_only", "checkpoint.enable_version_counter",
    "checkpoint.auto_insert_metric_name",
)  # fmt: skip
# The same of any object: how much it says, and which kernel of one result an optimizer of PyTorch takes.
TRIVIAL_ANYWHERE = {"verbose", "foreach", "fused", "capturable"}
# Callbacks that show or save, and change nothing.
ONLOOKERS = {
    "DeviceStatsMonitor", "Figures", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary", "OnExceptionCheckpoint",
    "PredictionFile", "ProgressBar", "Results", "RichModelSummary", "RichProgressBar", "TasksPerSecond",
    "ThroughputMonitor", "Timer", "TQDMProgressBar",
}  # fmt: skip

MONITOR = re.compile(r"val_(accuracy|loss)(_nontransductive)?|val/query_(accuracy|loss)/step_\d+(_nontransductive)?")
LONGEST = 80  # letters of a value


class Sweep(NamedTuple):
    """A setting that takes several values, and the settings with which it does."""

    name: str
    values: list[Any]  # of the members
    members: list[int]  # positions in the sequence that was searched


def flatten(config: Mapping[str, Any]) -> Settings:
    """The settings of a ``config.yaml`` by their names on the command line, without the trivial ones.

    An object counts as a setting, whose value is its class, and its arguments as further ones. A class of this package
    goes by its own name, since its import path may have changed between two runs:

    >>> flatten({"model": {"class_path": "lightning_meta.algorithms.MAML", "init_args": {"inner": {"steps": 1}}}})
    {'model': 'MAML', 'model.inner.steps': 1}
    """
    flat: Settings = {}
    _flatten("", config, flat)
    if "trainer.callbacks" in flat:
        flat["trainer.callbacks"] = _acting(flat["trainer.callbacks"])
    return {name: flat[name] for name in sorted(flat) if not _is_trivial(name)}


def _flatten(name: str, value: Any, flat: Settings) -> None:
    if not isinstance(value, Mapping):
        flat[name] = value
        return
    if "class_path" in value:
        path = str(value["class_path"])
        flat[name] = path.rpartition(".")[-1] if path.startswith("lightning_meta.") else path
        value = value.get("init_args") or {}
    for key, below in value.items():
        _flatten(f"{name}.{key}" if name else str(key), below, flat)


def _is_trivial(name: str) -> bool:
    return name.rpartition(".")[2] in TRIVIAL_ANYWHERE or any(_within(name, trivial) for trivial in TRIVIAL)


def _acting(callbacks: Any) -> Any:
    """Without those that only look on; None where no other is left."""
    given = callbacks if isinstance(callbacks, list) else [callbacks]
    paths = [str(one["class_path"] if isinstance(one, Mapping) and "class_path" in one else one) for one in given]
    kept = [one for one, path in zip(given, paths, strict=True) if path.rpartition(".")[2] not in ONLOOKERS]
    return [one for one in kept if one is not None] or None


def monitored(monitor: object) -> str:
    """What a checkpoint was chosen by, in words.

    >>> monitored("val_accuracy"), monitored("val_loss_nontransductive"), monitored("val/support_loss/step_1")
    ('transductive accuracy', 'non-transductive loss', 'val/support_loss/step_1')
    """
    match = MONITOR.fullmatch(str(monitor))
    if not match:
        return str(monitor)
    protocol = "non-transductive" if match[2] or match[4] else "transductive"
    return f"{protocol} {match[1] or match[3]}"


def _within(name: str, above: str) -> bool:
    return name == above or name.startswith(f"{above}.")


def identity(settings: Settings, without: str | None = None) -> Hashable:
    """Equal for equal settings, leaving out one and all that is below it."""
    return tuple((name, repr(value)) for name, value in settings.items() if not (without and _within(name, without)))


def varying(all_settings: Sequence[Settings]) -> list[str]:
    """Names of the settings that tell these runs apart.

    An argument that some of the runs lack because their object is of another class does not count as well, nor does
    null where an older version had no such setting.
    """
    names = sorted({name for settings in all_settings for name in settings})
    found: list[str] = []  # sorted: an object stands before its arguments
    for name in names:
        values = {repr(settings[name]) for settings in all_settings if name in settings}
        lacking = values != {"None"} and any(name not in settings for settings in all_settings)
        if len(values) > 1 or (lacking and not any(_within(name, above) for above in found)):
            found.append(name)
    return found


def describe(settings: Settings, names: Iterable[str]) -> str:
    """These settings in a few words, such as ``model.inner.optimizer.lr=0.4``."""
    return ", ".join(f"{name}={shown(settings[name])}" for name in names if name in settings)


def shown(value: Any) -> str:
    """A value as a person would write it: a class or function without its modules.

    >>> shown("torch.optim.SGD"), shown(1e-3), shown(None)
    ('SGD', '0.001', 'null')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping) and "class_path" in value:
        return shown(value["class_path"])
    if isinstance(value, list):
        return _short(f"[{', '.join(shown(item) for item in value)}]")
    text = str(value)
    return _short(text.rsplit(".", 1)[-1] if text.replace(".", "").isidentifier() else text)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def sweeps(all_settings: Sequence[Settings]) -> list[Sweep]:
    """Every setting that takes several values while all others are the same, once for each such set of others.

    Where an object is replaced by one of another class, its arguments go with it.
    """
    found = []
    for name in varying(all_settings):
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for position, settings in enumerate(all_settings):
            groups[identity(settings, without=name)].append(position)
        for members in groups.values():
            of_group = [all_settings[member] for member in members]
            if len({repr(settings.get(name)) for settings in of_group}) > 1:
                found.append(Sweep(name, _values(name, of_group), members))
    return found


def _values(name: str, all_settings: Sequence[Settings]) -> list[Any]:
    """Values of a setting; objects of one class that differ in their arguments by those as well."""
    classes = [settings.get(name) for settings in all_settings]
    values: list[Any] = []
    for own, settings in zip(classes, all_settings, strict=True):
        alike = [other for other, value in zip(all_settings, classes, strict=True) if value == own]
        below = [key for key in varying(alike) if key != name and _within(key, name)]
        values.append(f"{shown(own)} ({describe(settings, below)})" if below else own)
    return values
