"""Guard against two copies of the code in one process, which would mix two versions in silence."""

from pathlib import Path

import common
from common.errors import ProtocolError


def refuse_two_trees(app_file: str) -> None:
    """Stop unless `common` lies beside the folder of the app that is being loaded.

    Flower loads an app from its own folder but does not unload modules: a process that imported `common` from elsewhere
    would run an app of one version over parts of another.

    Raises:
        ProtocolError: With both folders.
    """
    expected, found = Path(app_file).resolve().parent.parent, Path(common.__file__).resolve().parent.parent
    if expected != found:
        raise ProtocolError(f"the app lies in {expected} and `common` was loaded from {found}. Start a fresh process.")
