"""What a scanner does to an object, one cause per function: `(images, parameter, rng) -> images`.

Shapes: float32 [N, H, W] or [N, C, H, W] to the same shape; 0 is black and 1 white, values may leave [0, 1] until they
are quantised. Every function leaves its input untouched and, at its neutral parameter, returns it and draws nothing.
Lengths in pixels mean pixels of an image 64 pixels wide, so that a parameter looks alike at every size.
"""

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Generator = np.random.Generator

REFERENCE_SIDE = 64


def bias_field(images: Images, parameter: float, rng: Generator) -> Images:
    """Multiply by a smooth receive-coil sensitivity, another one for each image.

    Args:
        images: The object.
        parameter: Largest |log sensitivity|; 0 is a uniform coil.
        rng: Draws the coefficients of a cubic polynomial in x and y.
    """
    if parameter == 0:
        return images
    x, y = plane(images)
    basis = np.stack([x, y, x * y, x**2 - 1 / 3, y**2 - 1 / 3, x**3, y**3]).reshape(7, -1)
    log_field = rng.standard_normal((len(images), 7)) @ basis
    log_field *= parameter / np.abs(log_field).max(axis=1, keepdims=True)
    return images * _per_image(np.exp(log_field.astype(np.float32)), images)


def vignette(images: Images, parameter: float, rng: Generator) -> Images:
    """Lose light towards the corners: 1 − parameter · r², with r = 1 in the corner; 0 loses none."""
    if parameter == 0:
        return images
    x, y = plane(images)
    return images * (1 - np.float32(parameter / 2) * (x**2 + y**2))


def psf_blur(images: Images, parameter: float, rng: Generator) -> Images:
    """Blur by a Gaussian point-spread function; parameter is its standard deviation in pixels, 0 is a point."""
    if parameter == 0:
        return images
    sigma = parameter * min(images.shape[-2:]) / REFERENCE_SIDE
    return separable(images, _gaussian(images.shape[-2], sigma), _gaussian(images.shape[-1], sigma))


def resolution(images: Images, parameter: float, rng: Generator) -> Images:
    """Acquire `parameter` × as many pixels per side (mean over each pixel) and interpolate back; 1 acquires all."""
    if parameter == 1:
        return images
    return separable(images, _resampler(images.shape[-2], parameter), _resampler(images.shape[-1], parameter))


def poisson_noise(images: Images, parameter: float, rng: Generator) -> Images:
    """Count photons; white makes 1/parameter² of them, so parameter is the relative noise of white. 0 counts none."""
    if parameter == 0:
        return images
    photons = parameter**-2
    return (rng.poisson(np.maximum(images, 0) * photons) / photons).astype(np.float32)


def rician_noise(images: Images, parameter: float, rng: Generator) -> Images:
    """Take the magnitude of a complex signal whose two parts carry Gaussian noise of this standard deviation.

    Source: Gudbjartsson & Patz 1995, eq. 1: E[M²] = A² + 2σ².
    """
    if parameter == 0:
        return images
    noise = rng.standard_normal((len(images), 2, *images.shape[1:]), dtype=np.float32)
    noise *= np.float32(parameter)
    magnitude: Images = np.hypot(images + noise[:, 0], noise[:, 1])
    return magnitude


def gain(images: Images, parameter: float, rng: Generator) -> Images:
    """Amplify the signal by this factor; 1 leaves it."""
    return images if parameter == 1 else images * np.float32(parameter)


def offset(images: Images, parameter: float, rng: Generator) -> Images:
    """Add a constant pedestal; 0 adds none."""
    return images if parameter == 0 else images + np.float32(parameter)


def gamma(images: Images, parameter: float, rng: Generator) -> Images:
    """Pass through a look-up table x ↦ x^parameter (x < 0 counts as 0); 1 leaves it."""
    if parameter == 1:
        return images
    curved = np.maximum(images, 0)
    return np.power(curved, np.float32(parameter), out=curved)


def contrast_inversion(images: Images, parameter: bool, rng: Generator) -> Images:
    """Show dark as bright, x ↦ 1 − x, when true."""
    return 1 - images if parameter else images


def plane(images: NDArray[np.generic]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give x [1, W] and y [H, 1] of the pixel centres, from -1 to 1 across the image, broadcast to [H, W]."""
    height, width = images.shape[-2:]
    x = (np.arange(width, dtype=np.float32) * 2 + 1) / width - 1
    y = (np.arange(height, dtype=np.float32) * 2 + 1) / height - 1
    along, down = np.broadcast_arrays(x[None, :], y[:, None])
    return along, down


def separable(images: Images, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Images:
    """Apply one matrix [H, H] down and one [W, W] along every image.

    The products are summed in double precision: their rounding depends on the number of threads, the result does not.
    """
    along = (images.reshape(-1, images.shape[-1]) @ columns.T).reshape(images.shape)
    return (rows @ along).astype(np.float32)


def _per_image(field: NDArray[np.float32], images: Images) -> NDArray[np.float32]:
    return field.reshape(len(images), *(1,) * (images.ndim - 3), *images.shape[-2:])


def _gaussian(size: int, sigma: float) -> NDArray[np.float64]:
    """Rows of a sampled Gaussian that sum to one: at the border the kernel is renormalised, so flat stays flat."""
    place = np.arange(size)
    kernel = np.exp(-0.5 * ((place[:, None] - place[None, :]) / sigma) ** 2)
    operator: NDArray[np.float64] = kernel / kernel.sum(axis=1, keepdims=True)
    return operator


def _resampler(size: int, share: float) -> NDArray[np.float64]:
    """Area mean down to `share` × size pixels, then linear interpolation up again, as one matrix [size, size]."""
    coarse = max(1, round(size * share))
    edges = np.arange(coarse + 1) * size / coarse
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(size)[None, :]
    down = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) * coarse / size
    place = np.clip((np.arange(size) + 0.5) * coarse / size - 0.5, 0, coarse - 1)
    up = np.clip(1 - np.abs(place[:, None] - np.arange(coarse)[None, :]), 0, None)
    operator: NDArray[np.float64] = up @ down
    return operator
