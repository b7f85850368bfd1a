"""A site's patients and its record keeping, apart from its scanner."""

from dataclasses import dataclass

from common.data.knobs import check_knobs, knob


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Who comes to a site, and what is noted about them.

    Raises:
        ConfigError: A knob leaves its range.
    """

    prevalence: float = knob(0.5, 0.0, 1.0, unit="share of patients", cause="how many patients carry a lesion")
    small_lesions: float = knob(0.5, 0.0, 1.0, unit="share of lesions", cause="how early lesions are found")
    label_noise: float = knob(0.0, 0.0, 0.5, unit="share of labels", cause="reading and coding errors")
    marker_with_lesion: float = knob(0.0, 0.0, 1.0, unit="share of images", cause="corner marker on ill patients")
    marker_without_lesion: float = knob(0.0, 0.0, 1.0, unit="share of images", cause="corner marker on healthy ones")

    def __post_init__(self) -> None:
        check_knobs(self)
