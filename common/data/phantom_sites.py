"""The phantom's hospitals: name to scanner and population."""

from dataclasses import dataclass

from common.data.phantom_population import Population
from common.data.phantom_scanner import SCANNERS, Scanner


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One hospital of the phantom."""

    name: str
    scanner: Scanner
    population: Population


SITES = (
    Site(
        name="north",
        scanner=SCANNERS["reference"],
        population=Population(prevalence=0.5, small_lesions=0.4, label_noise=0.02),
    ),
    Site(
        name="harbour",
        scanner=SCANNERS["soft"],
        population=Population(prevalence=0.4, small_lesions=0.5, label_noise=0.03),
    ),
    Site(
        name="university",
        scanner=SCANNERS["low-dose"],
        population=Population(prevalence=0.6, small_lesions=0.65, label_noise=0.02),
    ),
    Site(
        name="valley",
        scanner=SCANNERS["coil"],
        population=Population(prevalence=0.35, small_lesions=0.3, label_noise=0.05),
    ),
    Site(
        name="lakeside",
        scanner=SCANNERS["wide"],
        population=Population(
            prevalence=0.45, small_lesions=0.5, label_noise=0.03, marker_with_lesion=0.85, marker_without_lesion=0.1
        ),
    ),
    Site(
        name="island",
        scanner=SCANNERS["worn"],
        population=Population(prevalence=0.45, small_lesions=0.45, marker_with_lesion=0.3, marker_without_lesion=0.3),
    ),
)
"""Five ordinary sites, the last of them with a shortcut, and `island`, meant to be held out: an old scanner, and the
same marker on patients whether ill or not."""
