"""STREAMS: name to the order in which images come; `CORRUPTION@SEVERITY` is a stream too (see `make.py`)."""

from common.registry import Registry

_HERE = "simulations.streams."
STREAMS = Registry(
    "stream",
    {
        "no-shift": _HERE + "orders:no_shift",
        "prevalence-only-0.1": _HERE + "orders:PREVALENCE_ONLY_10",
        "prevalence-only-0.5": _HERE + "orders:PREVALENCE_ONLY_50",
        "prevalence-only-0.9": _HERE + "orders:PREVALENCE_ONLY_90",
        "iid": _HERE + "orders:iid",
        "prevalence-0.1": _HERE + "orders:PREVALENCE_10",
        "prevalence-0.5": _HERE + "orders:PREVALENCE_50",
        "prevalence-0.9": _HERE + "orders:PREVALENCE_90",
        "label-sorted": _HERE + "orders:label_sorted",
        "patient-clustered": _HERE + "orders:patient_clustered",
        "recurring": _HERE + "regimes:recurring",
        "mixed": _HERE + "regimes:mixed",
    },
)
