"""The painter against ellipses drawn one pixel at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.phantom_shapes import WARP_TERMS, Layer, Painter, coverage, quadratics, warped_plane

SIDE = 40
STRAIGHT = np.float32([[[0, 1, 0], [0, 0, 1]]]), np.zeros((1, 2, WARP_TERMS - 3), np.float32)


def layer(*ellipses: tuple[float, ...], name: str = "a", value: float = 1.0, inside: str = "") -> Layer:
    return Layer(name=name, ellipses=np.float32([ellipses]), value=np.float32([value]), inside=inside)


def cover(shape: Layer) -> np.ndarray:
    return coverage(quadratics(shape, 2 / SIDE), warped_plane(SIDE, *STRAIGHT)).reshape(SIDE, SIDE)


def slow(x: float, y: float, rx: float, ry: float, angle: float) -> np.ndarray:
    """Where the centre of a pixel lies in the ellipse, by turning every pixel into the ellipse's own axes."""
    result = np.zeros((SIDE, SIDE), bool)
    for row in range(SIDE):
        for column in range(SIDE):
            px, py = (2 * column + 1) / SIDE - 1 - x, (2 * row + 1) / SIDE - 1 - y
            u, v = px * np.cos(angle) + py * np.sin(angle), py * np.cos(angle) - px * np.sin(angle)
            result[row, column] = (u / rx) ** 2 + (v / ry) ** 2 <= 1
    return result


@given(
    x=st.floats(-0.5, 0.5), y=st.floats(-0.5, 0.5), rx=st.floats(0.1, 0.6), ry=st.floats(0.1, 0.6),
    angle=st.floats(-3.2, 3.2),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_half_coverage_is_the_outline(x, y, rx, ry, angle):
    fast = cover(layer((x, y, rx, ry, angle)))
    unsure = np.abs(fast - 0.5) < 1e-3
    assert np.array_equal((fast >= 0.5)[~unsure], slow(x, y, rx, ry, angle)[~unsure])


def test_coverage_adds_up_to_the_area_of_a_disc():
    assert cover(layer((0.1, -0.05, 0.5, 0.5, 0))).sum() * (2 / SIDE) ** 2 == pytest.approx(np.pi * 0.25, rel=0.01)


def test_an_absent_ellipse_covers_nothing():
    assert cover(layer((0, 0, 0, 0.3, 0), (0, 0, 0.3, 0, 0))).max() == 0


def test_a_union_covers_what_any_part_covers():
    one, two = (-0.3, 0, 0.3, 0.2, 0), (0.2, 0.1, 0.2, 0.4, 0.5)
    np.testing.assert_allclose(cover(layer(one, two)), np.maximum(cover(layer(one)), cover(layer(two))), atol=1e-6)


def test_later_layers_hide_earlier_ones_and_stay_inside_their_walls():
    room = layer((0, 0, 0.5, 0.5, 0), name="room", value=0.4)
    stain = layer((0.5, 0, 0.3, 0.3, 0), name="lesion", value=0.9, inside="room")
    image, lesions = Painter([room, stain], 2 / SIDE, 0.1).paint(slice(None), warped_plane(SIDE, *STRAIGHT))
    image = image.reshape(SIDE, SIDE)
    middle = SIDE // 2
    assert image[middle, 0] == pytest.approx(0.1)
    assert image[middle, middle] == pytest.approx(0.4)
    assert image[middle, int(0.7 * SIDE)] == pytest.approx(0.9)
    assert image[middle, int(0.85 * SIDE)] == pytest.approx(0.1)  # in the stain, outside the room
    assert np.array_equal(lesions[0, 0].reshape(SIDE, SIDE), (cover(room) * cover(stain)) >= 0.5)


def test_affine_places_pixels_and_waves_bend_them():
    affine = np.float32([[[0.25, 2, 0], [0, 0, 1]]])
    x = warped_plane(4, affine, STRAIGHT[1])[0, 3].reshape(4, 4)
    np.testing.assert_allclose(x[0], 0.25 + 2 * np.array([-0.75, -0.25, 0.25, 0.75]))
    bends = STRAIGHT[1].copy()
    bends[0, 0, 0] = 0.1  # the sine of the first wave, sin(πx), moves x
    x = warped_plane(4, STRAIGHT[0], bends)[0, 3].reshape(4, 4)[0]
    centres = np.array([-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(x, centres + 0.1 * np.sin(np.pi * centres), atol=1e-6)
