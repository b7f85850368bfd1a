"""DATASETS: name to builder `(settings: DataSection) -> Dataset`."""

from common.registry import Registry

DATASETS = Registry(
    "data set",
    {
        "phantom": "common.data.phantom:phantom",
        "archive": "common.data.archive:archive",
        "folder": "common.data.folder:folder",
        "medmnist": "common.data.medmnist:medmnist",
    },
)
