"""TASKS: name to task class, built by `Task(settings: TaskSection, classes, mask_classes)`."""

from common.registry import Registry

TASKS = Registry(
    "task",
    {
        "binary": "common.tasks.classification:Binary",
        "multiclass": "common.tasks.classification:Multiclass",
        "multilabel": "common.tasks.classification:Multilabel",
        "segmentation": "common.tasks.segmentation:Segmentation",
    },
)
