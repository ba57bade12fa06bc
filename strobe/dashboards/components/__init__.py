"""Parts that several pages share: the chart with its exports, a job's progress, clickable tokens, the footer."""

from strobe.dashboards.components.charts import chart, exports, figure_template
from strobe.dashboards.components.first_paint import first_paint
from strobe.dashboards.components.footer import footer
from strobe.dashboards.components.halves import halves
from strobe.dashboards.components.job_panel import job_panel
from strobe.dashboards.components.kept import kept_result, run_button, say_if_partial
from strobe.dashboards.components.lens_grid import lens_grid
from strobe.dashboards.components.model_card import model_card
from strobe.dashboards.components.token_strip import token_strip

__all__ = [
    "chart",
    "exports",
    "figure_template",
    "first_paint",
    "footer",
    "halves",
    "job_panel",
    "kept_result",
    "lens_grid",
    "model_card",
    "run_button",
    "say_if_partial",
    "token_strip",
]
