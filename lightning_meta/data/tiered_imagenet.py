"""tiered-ImageNet: 608 classes of ImageNet, split by their categories.

Ren, Triantafillou, Ravi, Snell, Swersky, Tenenbaum, Larochelle and Zemel, "Meta-learning for semi-supervised few-shot
classification", arXiv 1803.00676
"""

import io
from pathlib import Path

import numpy as np

from lightning_meta.data.drawing.photographs import LabelledImages, RGBEpisodes, decode_image, missing
from lightning_meta.data.files.downloads import ZENODO, download
from lightning_meta.data.files.safe_pickle import damaged, load_pickle
from lightning_meta.episode import Split

FOLDER = "tiered-imagenet"
NAMES: dict[Split, str] = {"train": "train", "validation": "val", "test": "test"}
FILES = {split: [f"{FOLDER}/{name}_{kind}.pkl" for kind in ("images_png", "labels")] for split, name in NAMES.items()}


class TieredImageNetEpisodes(RGBEpisodes):
    """tiered-ImageNet: 351 / 97 / 160 classes, 779,165 images, 84 x 84 pixels.

    Ren, Triantafillou, Ravi, Snell, Swersky, Tenenbaum, Larochelle and Zemel, "Meta-learning for semi-supervised
    few-shot classification", arXiv 1803.00676.

    ``root/tiered-imagenet/{train,val,test}_images_png.pkl`` and ``..._labels.pkl``. The first start decodes them into
    a cache file of 16.5 GB, and needs memory for one file of encoded images; the cache is then read through a memory
    map.
    """

    title = "tiered-ImageNet"
    side = 84

    def sources(self) -> dict[Split, list[str]]:
        for names in FILES.values():
            for name in names:
                if not (self.folder / name).exists():
                    raise missing(self.title, self.folder / name, "fetch it (12 GB) with --data.download true")
        return FILES

    def read(self, split: Split, files: list[str]) -> LabelledImages:
        path, labels_path = (self.folder / file for file in files)
        content = load_pickle(self.title, labels_path)
        if not isinstance(content, dict) or "label_specific" not in content:
            raise damaged(self.title, labels_path, "expected a dict with label_specific")
        images = load_pickle(self.title, path)
        if isinstance(images, np.ndarray) and images.ndim == 1 and images.dtype == object:
            images = images.tolist()
        if not isinstance(images, list | tuple):
            raise damaged(self.title, path, "expected a list of encoded images")

        def decode(rows: np.ndarray) -> np.ndarray:
            return np.stack([self._decode_row(images[row], path, row) for row in rows])

        return LabelledImages(self.check_labels(labels_path, content["label_specific"], len(images)), decode)

    def _decode_row(self, encoded: object, path: Path, row: int) -> np.ndarray:
        if isinstance(encoded, str):  # bytes of Python 2
            encoded = encoded.encode("latin1", "replace")  # PIL refuses what no image holds
        if isinstance(encoded, np.ndarray):  # OpenCV makes them
            encoded = encoded.tobytes()
        if not isinstance(encoded, bytes):
            raise damaged(self.title, path, f"image {row} is {type(encoded).__name__}, expected an encoded image")
        return decode_image(io.BytesIO(encoded), self.side, f"{path}, image {row},", self.title)

    def fetch(self) -> None:
        for names in FILES.values():
            for name in names:
                if not (self.folder / name).exists():
                    download(self.title, ZENODO + name.replace("/", "-"), self.folder / name)
