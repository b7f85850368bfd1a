"""Every error of the platform, as one tree.

ConsiliumError                exit 1
├─ ConfigError                exit 3   a setting is unknown, of the wrong type or out of range
│  ├─ UnknownNameError                 a name that stands in no table
│  └─ SiteCountError                   more or fewer simulated nodes than the data have sites
├─ DataError                  exit 4   a file, image, label or patient is not what it must be
├─ PrivacyError               exit 5   a guarantee cannot be kept
│  ├─ BudgetExhaustedError             the next release would cost more than the site allows
│  ├─ LedgerError                      the ledger is damaged, rolled back, in use or unreadable
│  └─ UnsupportedModelError            a layer in which patients meet, or which cannot be taken apart
├─ ProtocolError              exit 6   a message does not fit
│  └─ SecureAggregationError           secure aggregation refuses; `refusal` says what by name
├─ AggregationError           exit 7   replies cannot be combined
├─ RunFolderError             exit 8   a run folder exists, is missing, damaged or full
├─ AttentionError             exit 9   a model's attention cannot be read where the model says it is
└─ AdaptationError            exit 10  a method of test-time adaptation does not fit the model or the task

Every message has three parts: what was found, what is allowed, what to do. Only `code` may cross the wire.
"""

from difflib import get_close_matches
from typing import ClassVar


class ConsiliumError(Exception):
    """Base of all errors that a user can cause or cure.

    What to do: read the message; it names the setting or file.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1


class ConfigError(ConsiliumError):
    """A setting is unknown, of the wrong type or out of range.

    What to do: correct the key that the message names; `consilium settings` lists all keys with their meaning.
    """

    code = "config"
    exit_code = 3


class UnknownNameError(ConfigError):
    """A name stands in no table.

    What to do: take one of the names in the message.
    """

    code = "unknown-name"

    def __init__(self, what: str, name: str, known: list[str]) -> None:
        super().__init__(f"{what} {name!r} is not known.{nearest(name, known)} Known: {', '.join(sorted(known))}.")


class SiteCountError(ConfigError):
    """There are more or fewer simulated nodes than the data have sites, so some would be left out in silence.

    What to do: start as many nodes as the message says.
    """

    code = "site-count"


class DataError(ConsiliumError):
    """A file, image, label or patient is not what it must be.

    What to do: the message names the array or row; correct the data, or the `data.` setting that reads it.
    """

    code = "data"
    exit_code = 4


class PrivacyError(ConsiliumError):
    """A privacy guarantee cannot be kept.

    What to do: choose a mechanism, model or budget that the message allows.
    """

    code = "privacy"
    exit_code = 5


class BudgetExhaustedError(PrivacyError):
    """The next release would cost the site's patients more than its budget.

    What to do: end the study here (the model of the last paid round stands), or let the site decide on a larger budget.
    """

    code = "budget-exhausted"


class LedgerError(PrivacyError):
    """The ledger does not continue its chain, is older than its head, is in use, or cannot be read.

    What to do: stop and find out who changed it. It is never repaired by itself: a wrong ledger hides a spend.
    """

    code = "ledger"


class UnsupportedModelError(PrivacyError):
    """A layer lets one patient change another's gradient, or hides its parameters.

    What to do: use the layer that the message names instead, or another `privacy.engine`.
    """

    code = "unsupported-model"


class ProtocolError(ConsiliumError):
    """A message does not have the fields, types or versions that it must have.

    What to do: run the same version of Consilium on both sides.
    """

    code = "protocol"
    exit_code = 6


class SecureAggregationError(ProtocolError):
    """Secure aggregation refuses to go on: going on would open more than a sum of enough sites.

    What to do: see the text. A refusal protects the sites; begin the round anew and look at the site that it names.
    """

    code = "secure-aggregation"
    refusal = "secure-aggregation"

    def __init__(self, refusal: str, text: str) -> None:
        super().__init__(text)
        self.refusal = refusal


class AggregationError(ConsiliumError):
    """Replies cannot be combined: too few, not finite, or of different shapes.

    What to do: look up the failed sites in the history; lower `cohort.quorum` only if the study allows it.
    """

    code = "aggregation"
    exit_code = 7


class RunFolderError(ConsiliumError):
    """A run folder exists already, is missing, is damaged, or the disk is full.

    What to do: give another `--out`, continue with `--resume`, or free space.
    """

    code = "run-folder"
    exit_code = 8


class AttentionError(ConsiliumError):
    """A model's attention cannot be read where the model says that it is.

    What to do: correct `attention_sites` of the model that the message names; every site fires once in a forward pass.
    """

    code = "attention"
    exit_code = 9


class AdaptationError(ConsiliumError):
    """A method of test-time adaptation does not fit the model, the task, or what is known of the source sites.

    What to do: take one of the methods that the message names, or measure what it says is missing.
    """

    code = "adaptation"
    exit_code = 10


def nearest(name: str, known: list[str]) -> str:
    """Say ' Did you mean …?' when a known name lies close, else nothing."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
