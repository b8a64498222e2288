"""Drawing results on frames: contours, so that the mucosa inside stays visible.

The drawing itself lies on the ground (`kdas_edge.overlay`), because training draws too.
"""

from kdas_edge.overlay import GROUND_TRUTH, PREDICTION, SECOND_PREDICTION, draw_contours

__all__ = ["GROUND_TRUTH", "PREDICTION", "SECOND_PREDICTION", "draw_contours"]
