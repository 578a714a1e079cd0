"""What is compared when (PVD, Fang et al. 2023, sec. 3.4): features alone, then with density and colour of the samples,
then with the rays' colours too. The ends are those of the published code as parts of its 30 000 steps, so that short
and long distillations go the same way.

    loss = w_f L_features + 0.002 L_density + 0.002 L_color + L_rendered,   w_f = 0.002 * 0.995^step
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..errors import BadInput

FEATURE_DECAY = 0.995
NAMES = ("features", "density", "color", "rendered")


@dataclass(frozen=True)
class Stage:
    """Up to the part `until` of the budget, the weights by name of what is compared."""

    until: float
    weights: dict[str, float] = field(default_factory=dict)

    def at(self, step: int) -> dict[str, float]:
        """The weights at a step."""
        return {k: w * FEATURE_DECAY**step if k == "features" else w for k, w in self.weights.items()}


_FEATURES = {"features": 0.002}
_SAMPLES = {**_FEATURES, "density": 0.002, "color": 0.002}
_ALL = {**_SAMPLES, "rendered": 1.0}
PVD = (Stage(1 / 15, _FEATURES), Stage(1 / 6, _SAMPLES), Stage(1.0, _ALL))
WITHOUT_STAGES = (Stage(1.0, _ALL),)
RENDERED_ONLY = (Stage(1.0, {"rendered": 1.0}),)


def checked(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages. Raises `BadInput` where they do not rise to 1, or compare what nothing is called."""
    ends = [stage.until for stage in stages]
    if not ends or ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1:
        raise BadInput(f"the stages end at {ends}; the rule: rising from above 0 to 1")
    for name in (name for stage in stages for name in stage.weights):
        if name not in NAMES:
            raise BadInput(f"a stage compares {name!r}; the rule: {', '.join(NAMES)}")
    return stages


def for_names(stages: tuple[Stage, ...], names: list[str]) -> tuple[Stage, ...]:
    """The stages with what two fields have in common: those of which nothing is left are skipped, and the next begins
    in their place. Raises `BadInput` where nothing is left at all."""
    kept = [replace(s, weights={k: w for k, w in s.weights.items() if k in names}) for s in checked(stages)]
    kept = tuple(stage for stage in kept if stage.weights)
    if not kept or kept[-1].until != 1:
        raise BadInput(f"teacher and student have {', '.join(names) or 'nothing'} in common; the rule: what stages use")
    return kept


def stage_at(stages: tuple[Stage, ...], progress: float) -> Stage:
    """The stage at `progress` in [0, 1): from its predecessor's end on, up to its own."""
    return next((stage for stage in stages if progress < stage.until), stages[-1])
