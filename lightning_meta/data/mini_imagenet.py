"""mini-ImageNet: 100 classes of ImageNet in small images.

Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra, "Matching networks for one shot learning", arXiv 1606.04080;
split by Ravi and Larochelle, "Optimization as a model for few-shot learning", ICLR 2017
"""

import numpy as np

from lightning_meta.data.drawing.photographs import SPLITS, LabelledImages, RGBEpisodes, check_integers, missing
from lightning_meta.data.files.downloads import ZENODO, download
from lightning_meta.data.files.safe_pickle import damaged, load_pickle
from lightning_meta.episode import Split


class MiniImageNetEpisodes(RGBEpisodes):
    """mini-ImageNet: 64 / 16 / 20 classes of 600 images, 84 x 84 pixels.

    Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra, "Matching networks for one shot learning", arXiv 1606.04080;
    split by Ravi and Larochelle, "Optimization as a model for few-shot learning", ICLR 2017.

    ``root/mini-imagenet-cache-{train,validation,test}.pkl``.
    """

    title = "mini-ImageNet"
    side = 84

    def sources(self) -> dict[Split, list[str]]:
        for split in SPLITS:
            if not (self.folder / _name(split)).exists():
                raise missing(self.title, self.folder / _name(split), "fetch it with --data.download true")
        return {split: [_name(split)] for split in SPLITS}

    def read(self, split: Split, files: list[str]) -> LabelledImages:
        path = self.folder / files[0]
        content = load_pickle(self.title, path)
        if not isinstance(content, dict) or not {"image_data", "class_dict"} <= content.keys():
            raise damaged(self.title, path, "expected a dict with image_data and class_dict")
        images, classes = self.check_pixels(path, content["image_data"]), content["class_dict"]
        try:
            sizes = [len(rows) for rows in classes.values()]
            if sum(sizes) != len(images) or not len(images):  # before joining them: classes can share one long list
                raise damaged(self.title, path, f"{sum(sizes)} rows in class_dict for {len(images)} images")
            rows = np.concatenate([check_integers(rows) for rows in classes.values()])
        except (AttributeError, TypeError, ValueError) as error:  # not a dict of lists
            raise damaged(self.title, path, "expected class_dict to map names to lists of rows") from error
        if not np.array_equal(np.sort(rows), np.arange(len(rows))):
            raise damaged(self.title, path, f"the {len(rows)} rows in class_dict are not 0..{len(rows) - 1}, each once")
        labels = np.empty(len(rows), np.int64)
        labels[rows] = np.repeat(np.arange(len(sizes)), sizes)
        return LabelledImages(labels, images.__getitem__)

    def fetch(self) -> None:
        for split in SPLITS:
            if not (self.folder / _name(split)).exists():
                download(self.title, ZENODO + _name(split), self.folder / _name(split))


def _name(split: Split) -> str:
    return f"mini-imagenet-cache-{split}.pkl"
