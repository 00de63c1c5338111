"""FC100: CIFAR-100 with training and test classes from different superclasses.

Oreshkin, Rodriguez and Lacoste, "TADAM: Task dependent adaptive metric for improved few-shot learning",
arXiv 1805.10123

The split (`splits/fc100.json`) assigns 12 / 4 / 4 of CIFAR-100's superclasses, of five classes each, as the paper's
supplement lists them.
"""

import json
from importlib import resources

from lightning_meta.data.cifarfs import FOLDER, class_files, read_folders
from lightning_meta.data.drawing.photographs import LabelledImages, RGBEpisodes, missing
from lightning_meta.data.files.downloads import ZENODO, download_archive
from lightning_meta.data.files.safe_pickle import damaged, load_pickle
from lightning_meta.episode import Split

PICKLES: dict[Split, str] = {
    "train": "FC100_train.pickle", "validation": "FC100_val.pickle", "test": "FC100_test.pickle"
}  # fmt: skip


class FC100Episodes(RGBEpisodes):
    """FC100: 60 / 20 / 20 classes of 600 images, 32 x 32 pixels.

    Oreshkin, Rodriguez and Lacoste, "TADAM: Task dependent adaptive metric for improved few-shot learning",
    arXiv 1805.10123.

    ``root/FC100_{train,val,test}.pickle``. Where there is none of them, the classes are taken from CIFAR-FS's folder
    ``root/cifarfs/cifar100/data``, which holds the same 600 images of each class in another order, so that the same
    seed draws other tasks.
    """

    title = "FC100"
    side = 32

    def sources(self) -> dict[Split, list[str]]:
        there = [(self.folder / name).exists() for name in PICKLES.values()]
        if not any(there) and (self.folder / FOLDER).is_dir():
            return {split: class_files(self.title, self.folder, classes) for split, classes in read_split().items()}
        for name in PICKLES.values():
            if not (self.folder / name).exists():
                raise missing(self.title, self.folder / name, f"fetch it with --data.download true, or have {FOLDER}")
        return {split: [name] for split, name in PICKLES.items()}

    def read(self, split: Split, files: list[str]) -> LabelledImages:
        if files != [PICKLES[split]]:
            return read_folders(self.folder, files)
        path = self.folder / files[0]
        content = load_pickle(self.title, path)
        if not isinstance(content, dict) or not {"data", "labels"} <= content.keys():
            raise damaged(self.title, path, "expected a dict with data and labels")
        images = self.check_pixels(path, content["data"])
        return LabelledImages(self.check_labels(path, content["labels"], len(images)), images.__getitem__)

    def fetch(self) -> None:
        download_archive(self.title, ZENODO + "fc100.zip", self.folder, list(PICKLES.values()))


def read_split() -> dict[Split, list[str]]:
    """Names of CIFAR-100's classes in each split; together they are all 100."""
    text = resources.files("lightning_meta.data").joinpath("splits", "fc100.json").read_text("utf-8")
    split: dict[Split, list[str]] = json.loads(text)
    return split
