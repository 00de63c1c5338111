"""Files of weights for a pretrained network: what is read from them, and what is refused."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_meta.backbones import Pretrained
from lightning_meta.errors import MetaLearningError

WAYS = 3


def small_network(channels: int = 3) -> nn.Sequential:
    network = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 9))
    network.register_buffer("places", torch.tensor([0, 4099]))  # which float16 and bfloat16 round
    return network


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_read_from_a_file_without_its_head(suffix: str, tmp_path: Path) -> None:
    def network(classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, classes))

    trained, path = network(7), tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained.state_dict(), path)
    backbone = Pretrained(WAYS, network(9), str(path))
    assert torch.equal(backbone.network[0].weight, trained[0].weight)
    assert backbone.network[3].weight.shape == (WAYS, 16)
    x = torch.rand(2, 3, 4, 4)
    mean, deviation = (torch.tensor(torchvision.models.ResNet18_Weights.DEFAULT.transforms().__dict__[key])
                       for key in ("mean", "std"))  # fmt: skip
    normalised = (x - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(backbone(x), backbone.network(normalised))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "there is no such file: nothing is downloaded"),
        (lambda path: path.write_text("no weights"), "cannot be read as a state_dict"),
        (lambda path: torch.save([1], path), "cannot be read as a state_dict"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "as a state_dict: it is not a regular file"),
        (lambda path: torch.save({"0.bias": torch.zeros(4)}, path), "whose 0.weight is missing, but in Sequential it"),
        (
            lambda path: torch.save({"0.bias": torch.zeros(4), "0.weight": torch.zeros(4, 2)}, path),
            r"whose 0.weight is of shape \(4, 2\), but in Sequential it is of shape \(4, 3\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(change: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.touch()
    change(path)
    with pytest.raises(MetaLearningError, match=said) as refusal:
        Pretrained(WAYS, nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), str(path))
    assert len(str(refusal.value).splitlines()) == 1


VALUES: dict[str, tuple[str, Any, str]] = {
    "nan": ("0.weight", lambda weight: weight * math.nan, "0.weight holds NaN or infinity"),
    "infinity": ("0.bias", lambda bias: bias / 0, "0.bias holds NaN or infinity"),
    "beyond float32": ("0.weight", lambda weight: weight.double() * 1e300, "0.weight holds NaN or infinity"),
    "statistics": ("1.running_mean", lambda mean: mean * math.nan, "1.running_mean holds NaN or infinity"),
    "variance": ("1.running_var", lambda variance: -variance, "1.running_var holds negative variances"),
    "integers": ("0.weight", lambda weight: weight.long(), "0.weight holds torch.int64, but torch.float32 is expected"),
    "complex": ("0.weight", lambda weight: weight + 1j, "0.weight holds torch.complex64, but"),
    "places": ("places", lambda places: places + 0.5, "places holds torch.float32, but torch.int64 is expected"),
    "other places": ("places", lambda places: places.flip(0).float(), "places holds torch.float32, but"),
    "shape": ("0.weight", lambda weight: weight[:, :1].contiguous(), r"0.weight is of shape \(4, 1, 3, 3\), but in"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("case", VALUES)
def test_weights_of_wrong_values_are_refused_by_their_name(case: str, suffix: str, tmp_path: Path) -> None:
    name, change, said = VALUES[case]
    path, state = tmp_path / f"weights{suffix}", small_network().state_dict()
    save = save_file if suffix == ".safetensors" else torch.save
    save(state | {name: change(state[name])}, path)
    with pytest.raises(MetaLearningError, match=f"^model.backbone.weights is {path}, whose {said}"):
        Pretrained(WAYS, small_network(), str(path))
    save(state | {"3.weight": state["3.weight"] * math.nan}, path)  # of the head, which is not used
    Pretrained(WAYS, small_network(), str(path))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_files_may_hold_all_values_in_one_float_type(kind: torch.dtype, suffix: str, tmp_path: Path) -> None:
    trained, path = small_network(), tmp_path / f"weights{suffix}"
    trained[1].num_batches_tracked.fill_(7)
    (save_file if suffix == ".safetensors" else torch.save)(
        {name: value.to(kind) for name, value in trained.state_dict().items()}, path
    )
    network = Pretrained(WAYS, small_network(), str(path)).network
    assert torch.equal(network[0].weight, trained[0].weight.to(kind).float())
    assert network.places.tolist() == [0, 4099]


@pytest.mark.parametrize("count", [None, torch.tensor(3, dtype=torch.int32), torch.ones(1), torch.tensor(math.nan),
                                   torch.ones(2, 2), torch.tensor(1j)])  # fmt: skip
def test_the_count_of_batches_in_a_file_is_not_used(count: Tensor | None, tmp_path: Path) -> None:
    trained, name = small_network(), "1.num_batches_tracked"
    state = {key: value for key, value in trained.state_dict().items() if key != name}
    torch.save(state if count is None else state | {name: count}, tmp_path / "weights.pth")
    backbone = Pretrained(WAYS, small_network(), str(tmp_path / "weights.pth"))
    assert torch.equal(backbone.network[0].weight, trained[0].weight)


@pytest.mark.parametrize("content", [[1], {"state_dict": [3]}, {"0.weight": 3.0}, {3: torch.zeros(2)}, torch.zeros(3)])
def test_files_without_named_tensors_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(MetaLearningError, match="cannot be read as a state_dict: ") as refusal:
        Pretrained(WAYS, small_network(), str(tmp_path / "weights.pth"))
    assert len(str(refusal.value).splitlines()) == 1
