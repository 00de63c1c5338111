"""The settings in which `throughput.py` compares, and our side of each."""

from functools import partial
from typing import Any, NamedTuple

import torch

from lightning_meta.algorithms import ANIL, FOMAML, MAML, Reptile
from lightning_meta.backbones import Conv4, ResNet12
from lightning_meta.data import GlyphEpisodes, OmniglotEpisodes
from lightning_meta.data.drawing.images import ClassImages, ImageEpisodes
from lightning_meta.inner import SGD, Adam, InnerLoop
from lightning_meta.learner import MetaLearner

ALGORITHMS: dict[str, type[MetaLearner]] = {"MAML": MAML, "FOMAML": FOMAML, "ANIL": ANIL, "Reptile": Reptile}
MINI = partial(Conv4, channels=3, filters=32, image_size=84, downsample="max_pool", head="flatten")
BACKBONES: dict[str, Any] = {"omniglot": Conv4, "mini_imagenet": MINI, "resnet12": ResNet12}


class Case(NamedTuple):
    """A setting in which all are compared."""

    algorithm: str
    task: str  # such as 5w1s; o15 is that of Nichol et al.
    inner_steps: int
    backbone: str
    tasks: int

    @property
    def ways(self) -> int:
        return 5 if self.task == "o15" else int(self.task.split("w")[0])

    @property
    def shots(self) -> int:
        return 10 if self.task == "o15" else int(self.task[:-1].split("w")[1])


QUICK = [Case("MAML", "5w1s", 1, "omniglot", 32), Case("FOMAML", "5w1s", 1, "omniglot", 32),
         Case("MAML", "5w5s", 1, "omniglot", 32), Case("MAML", "5w1s", 5, "omniglot", 32),
         Case("Reptile", "o15", 5, "omniglot", 5)]  # fmt: skip
FULL = [
    *QUICK,
    *(Case("MAML", "5w1s", 1, "omniglot", tasks) for tasks in (1, 4, 256)),
    *(Case("FOMAML", "5w1s", 1, "omniglot", tasks) for tasks in (1, 4, 256)),
    Case("FOMAML", "5w1s", 5, "omniglot", 32),
    Case("ANIL", "5w1s", 1, "omniglot", 32),
    Case("ANIL", "5w1s", 5, "omniglot", 32),
    Case("FOMAML", "5w5s", 1, "omniglot", 32),
    Case("MAML", "20w1s", 1, "omniglot", 16),
    Case("MAML", "20w1s", 5, "omniglot", 16),
    Case("MAML", "5w1s", 5, "mini_imagenet", 4),
    Case("FOMAML", "5w1s", 5, "mini_imagenet", 4),
    Case("MAML", "5w1s", 1, "resnet12", 2),
]


class RandomImages(ImageEpisodes):
    """Colour images of 84 x 84 without content, of mini-ImageNet's 64 training classes."""

    def load(self) -> ClassImages:
        counts = torch.full((64,), 40)
        images = torch.randint(256, (int(counts.sum()), 3, 84, 84), dtype=torch.uint8)
        classes = torch.arange(64)
        return ClassImages(images, counts.cumsum(0) - counts, counts, {"train": classes, "test": classes})


def data_of(case: Case, root: str | None) -> ImageEpisodes:
    """Our side's episodes."""
    shots = {"shots": case.shots, "queries": 1 if case.task == "o15" else case.shots, "meta_batch_size": case.tasks}
    if case.backbone != "omniglot":
        return RandomImages(ways=case.ways, **shots, validation_tasks=0, test_tasks=0)
    if root is None:
        return GlyphEpisodes(ways=case.ways, **shots, train_classes=1100, rotations="none", validation_tasks=0)
    return OmniglotEpisodes(root=root, ways=case.ways, **shots, rotations="none", validation_tasks=0)


def learner_of(case: Case) -> MetaLearner:
    """Our side's algorithm."""
    if case.algorithm == "Reptile":
        inner = InnerLoop(Adam(1e-3, beta1=0.0), case.inner_steps, 10)
        return Reptile(Conv4(case.ways, head="flatten"), inner, lr_scheduler=None)
    return ALGORITHMS[case.algorithm](BACKBONES[case.backbone](case.ways), InnerLoop(SGD(0.4), case.inner_steps))
