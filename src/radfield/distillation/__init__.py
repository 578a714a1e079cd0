"""Progressive volume distillation: any field into any other (PVD, Fang et al. 2023; PVD-AL, Fang et al. 2023b)."""

from .active import Active
from .comparing import CLAMP
from .loop import Distillation, StepResult, distill, step
from .sampler import Sampler
from .stages import PVD, RENDERED_ONLY, WITHOUT_STAGES, Stage

__all__ = ["CLAMP", "PVD", "RENDERED_ONLY", "WITHOUT_STAGES", "Active", "Distillation", "Sampler", "Stage"]
__all__ += ["StepResult", "distill", "step"]
