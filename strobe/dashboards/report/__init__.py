"""One offline page about one model: all six analyses, each with its control, as `strobe report` writes it."""

from strobe.dashboards.report.making import Report, make_report
from strobe.dashboards.report.page import page_of
from strobe.dashboards.report.plan import ANALYSES
from strobe.dashboards.report.subject import Subject, subject_of

__all__ = ["ANALYSES", "Report", "Subject", "make_report", "page_of", "subject_of"]
