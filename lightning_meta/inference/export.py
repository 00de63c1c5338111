"""Adapted learners for other programs: programs of ``torch.export``, and ONNX."""

import warnings
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.adapted import AdaptedLearner

ROWS = 3  # of the example that is traced; more than 1, which an exporter would take for a constant


def export_program(adapted: AdaptedLearner) -> ExportedProgram:
    """The adapted network as a program of ``torch.export``, for any number of rows; write it by ``torch.export.save``.

    Args:
        adapted: what `MetaLearner.adapt_to` gave; its support set is part of the program where rows are seen alone.

    Raises:
        MetaLearningError: the program would give other outputs than the network.
    """
    x = adapted.support_x
    example = torch.stack([x[0] * (row + 1) for row in range(ROWS)])  # rows that differ
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch about itself
        program = torch.export.export(adapted, (example,), dynamic_shapes={"x": {0: Dim("rows", min=1)}}, strict=False)
        exported, expected = program.module()(example), adapted(example)
    if not torch.allclose(exported, expected, rtol=1e-3, atol=1e-4):
        raise MetaLearningError(
            f"{type(adapted.backbone).__name__} mixes the rows of a batch in a layer other than this package's norms, "
            "so that it cannot be exported for rows that are seen alone: adapt with together=True"
        )
    return program


def export_onnx(adapted: AdaptedLearner, path: str | Path) -> None:
    """Write the adapted network as ONNX: input ``x`` (rows, ...), output ``outputs`` (rows, classes or targets).

    Args:
        adapted: as in `export_program`.
        path: of the file.

    Raises:
        MetaLearningError: the packages of the extra ``export`` are not installed.
    """
    try:
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError:
        raise MetaLearningError('writing ONNX needs further packages: pip install "lightning-meta[export]"') from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            export_program(adapted), (), path, input_names=["x"], output_names=["outputs"], dynamo=True, verbose=False,
            external_data=False,
        )  # fmt: skip
