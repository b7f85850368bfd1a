"""DATASETS: name to builder `(settings: DataSection) -> Dataset`."""

from common.registry import Registry

DATASETS = Registry(
    "data set",
    {
        "phantom": "common.data.phantom:phantom",
        "archive": "common.data.archive:archive",
        "folder": "common.data.folder:folder",
        "medmnist": "common.data.medmnist:medmnist",
        "fed-isic2019": "common.data.fed_isic2019:fed_isic2019",
        "fed-camelyon16": "common.data.fed_camelyon16:fed_camelyon16",
        "fed-ixi": "common.data.fed_ixi:fed_ixi",
        "fed-kits19": "common.data.fed_kits19:fed_kits19",
        "wilds-camelyon17": "common.data.wilds_camelyon17:wilds_camelyon17",
    },
)
