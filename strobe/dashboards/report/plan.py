"""The six analyses of a report, in its order."""

from strobe.dashboards.report import collapse, features, fixed_points, geometry, lens, steering

ANALYSES = {one.ANALYSIS.name: one.ANALYSIS for one in (lens, steering, features, geometry, collapse, fixed_points)}
"""By the name that a command knows them by."""
