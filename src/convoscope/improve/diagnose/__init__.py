"""What is wrong with this network? All suspicions asked at once, each tested, the largest first.

``stage`` holds what a stage is; ``run`` runs them; ``page`` draws what came out.
"""

from __future__ import annotations

from .run import Diagnosis, diagnose
from .stage import STAGES, Case, Stage, StageResult

__all__ = ["STAGES", "Case", "Diagnosis", "Stage", "StageResult", "diagnose"]
