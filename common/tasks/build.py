"""From the run's settings to its task."""

from common.config import TaskSection
from common.tasks import TASKS
from common.tasks.base import Task


def build_task(settings: TaskSection, classes: tuple[str, ...], mask_classes: tuple[str, ...]) -> Task:
    """Build the task that `settings` names, for a data set with these classes.

    Raises:
        UnknownNameError: No such task.
        ConfigError: The task does not fit the classes.
    """
    task: Task = TASKS.load(settings.name)(settings, classes, mask_classes)
    return task
