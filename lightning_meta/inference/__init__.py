"""From a trained learner to predictions: checkpoints by name, scikit-learn estimators, pictures, export."""

from lightning_meta.inference.estimators import FewShotClassifier, FewShotRegressor
from lightning_meta.inference.export import export_onnx, export_program
from lightning_meta.inference.loading import load_learner, save_learner
from lightning_meta.inference.pictures import read_pictures
from lightning_meta.learner_file import pretrained

__all__ = [
    "FewShotClassifier",
    "FewShotRegressor",
    "export_onnx",
    "export_program",
    "load_learner",
    "pretrained",
    "read_pictures",
    "save_learner",
]
