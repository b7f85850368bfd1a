"""METRICS: name to metric class, each built without arguments."""

from common.registry import Registry

METRICS = Registry(
    "metric",
    {
        "auroc": "common.metrics.classification:Auroc",
        "balanced-accuracy": "common.metrics.classification:BalancedAccuracy",
        "sensitivity-at-90-specificity": "common.metrics.classification:SensitivityAtSpecificity",
        "ece": "common.metrics.calibration:ExpectedCalibrationError",
        "brier": "common.metrics.calibration:Brier",
        "dice": "common.metrics.segmentation:Dice",
        "hd95": "common.metrics.segmentation:Hd95",
    },
)
