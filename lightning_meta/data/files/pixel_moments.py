"""Mean and standard deviation of the channels of images that come piece by piece."""

import numpy as np


class PixelMoments:
    """Counts how often each of 256 values occurs in each channel, which is exact and takes no memory.

    Args:
        channels: of the images.
    """

    def __init__(self, channels: int) -> None:
        self._counts = np.zeros((channels, 256), np.int64)

    def add(self, images: np.ndarray) -> None:
        """Count the values of further images, uint8 (images, channels, height, width)."""
        for counts, channel in zip(self._counts, images.swapaxes(0, 1), strict=True):
            counts += np.bincount(channel.ravel(), minlength=256)

    def moments(self) -> list[list[float]] | None:
        """Mean and standard deviation of each channel, of values in 0..1; None where there was no image.

        A channel that hardly varies has the deviation of one step, 1 / 255, so that one can divide by it.
        """
        pixels, levels = self._counts.sum(1), np.arange(256) / 255
        if not pixels.all():
            return None
        mean = self._counts @ levels / pixels
        deviation = np.sqrt((self._counts @ levels**2 / pixels - mean**2).clip(0)).clip(1 / 255)
        return [mean.tolist(), deviation.tolist()]
