"""CORRUPTIONS: name to part, in families; names are MedMNIST-C's (Di Salvo et al. 2024) where it has the corruption."""

from common.registry import Registry

_HERE = "simulations.corruptions."
CORRUPTIONS = Registry(
    "corruption",
    {
        "gaussian_noise": _HERE + "noise:GAUSSIAN",
        "shot_noise": _HERE + "noise:SHOT",
        "rician_noise": _HERE + "noise:RICIAN",
        "speckle_noise": _HERE + "noise:SPECKLE",
        "impulse_noise": _HERE + "noise:IMPULSE",
        "gaussian_blur": _HERE + "blur:GAUSSIAN",
        "defocus_blur": _HERE + "blur:DEFOCUS",
        "motion_blur": _HERE + "blur:MOTION",
        "slice_thickness": _HERE + "blur:SLICE_THICKNESS",
        "jpeg_compression": _HERE + "digital:JPEG",
        "pixelate": _HERE + "digital:PIXELATE",
        "gamma_corr_up": _HERE + "intensity:GAMMA_UP",
        "gamma_corr_down": _HERE + "intensity:GAMMA_DOWN",
        "contrast_up": _HERE + "intensity:CONTRAST_UP",
        "contrast_down": _HERE + "intensity:CONTRAST_DOWN",
        "brightness_up": _HERE + "intensity:BRIGHTNESS_UP",
        "brightness_down": _HERE + "intensity:BRIGHTNESS_DOWN",
        "inversion": _HERE + "intensity:INVERSION",
        "stain_shift": _HERE + "intensity:STAIN_SHIFT",
        "bias_field": _HERE + "scanner:BIAS_FIELD",
        "ghosting": _HERE + "scanner:GHOSTING",
        "spikes": _HERE + "scanner:SPIKES",
        "ring": _HERE + "scanner:RING",
        "streak": _HERE + "scanner:STREAK",
        "metal": _HERE + "scanner:METAL",
        "bubble": _HERE + "overlaid:BUBBLE",
        "hair": _HERE + "overlaid:HAIR",
        "ruler": _HERE + "overlaid:RULER",
        "black_corner": _HERE + "overlaid:BLACK_CORNER",
        "rotation": _HERE + "geometry:ROTATION",
        "crop": _HERE + "geometry:CROP",
    },
)
