"""The last wall of a site: whatever goes wrong inside, only a code leaves, never a text."""

import functools
import logging
from collections.abc import Callable

from flwr.app import Context, Error, Message

from common.errors import ConsiliumError

log = logging.getLogger(__name__)
Handler = Callable[[Message, Context], Message]
# Flower's own number for "the client app raised"; the reason is what our server reads.
RAISED = 2


def guarded(handler: Handler) -> Handler:
    """Wrap a handler so that it never raises: Flower would send the exception's text, which can hold a patient."""

    @functools.wraps(handler)
    def call(message: Message, context: Context) -> Message:
        try:
            return handler(message, context)
        except ConsiliumError as error:
            code = getattr(error, "refusal", error.code)
            log.error("refused: %s", code)
            log.debug("details, for this site only", exc_info=True)
            return Message(Error(code=RAISED, reason=f"consilium:{code}"), reply_to=message)
        except Exception as error:
            log.error("failed: %s", type(error).__name__)
            log.debug("details, for this site only", exc_info=True)
            return Message(Error(code=RAISED, reason="consilium:internal"), reply_to=message)

    return call
