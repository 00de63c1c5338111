"""Fine-tuning, a baseline: Chen et al., "A Closer Look at Few-shot Classification", arXiv 1904.04232."""

from lightning_meta.algorithms.joint_training import JointTraining
from lightning_meta.episode import Episode
from lightning_meta.params import Params


class FineTuning(JointTraining):
    """Train a classifier of all training classes; for a new task, put a new last layer on its features and train on.

    The new layer starts from zero, and the inner loop adapts it together with the whole network, where the baseline of
    Chen et al. keeps the features fixed. With an outer optimizer of rate 0, the network stays as it was drawn: training
    from scratch on the support set.
    """

    any_ways = True

    def start(self, params: Params, task: Episode) -> Params:
        """The backbone with a new last layer, of one output for each class of the task."""
        return super().start(params, task) | self.head.zeros(len(task.classes) or None)
