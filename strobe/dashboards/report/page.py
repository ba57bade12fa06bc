"""The report as one HTML file: everything in it, nothing asked of anyone, every word of a model escaped."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from strobe import __version__
from strobe.core.tokens import escape_html, show
from strobe.dashboards import loading
from strobe.dashboards.report.making import Done, Report, Section, in_words

if TYPE_CHECKING:
    import plotly.graph_objects

# Even a slip of ours, or a label that got past the escaping, cannot ask an outside host.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 1080px; padding: 2rem 1.25rem 4rem; background: #fff; color: #1f2328;
  font: 16px/1.55 'Source Sans 3', Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif; }
h1 { font-size: 1.9rem; margin: 0 0 .25rem; } h2 { font-size: 1.4rem; margin: 0 0 .25rem; }
section { border-top: 1px solid #d5dae1; margin-top: 2.5rem; padding-top: 1.25rem; }
.question { font-size: 1.1rem; margin: .25rem 0; } .about, .note, footer { color: #57606a; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1rem 0; padding: 0; }
.facts div { min-width: 6rem; } .facts dt { color: #57606a; font-size: .85rem; } .facts dd { margin: 0; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem 1.5rem .2rem 0; vertical-align: top; }
pre { background: #f3f5f8; border-radius: .4rem; padding: .75rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.5 ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; }
details { margin: .5rem 0 1.5rem; } summary { cursor: pointer; color: #0060a0; }
.failed { border-left: 4px solid #d55e00; padding: .25rem 1rem; } .absent { border-left: 4px solid #8a8f98;
  padding: .25rem 1rem; } figure { margin: 1rem 0; overflow-x: auto; } a { color: #0060a0; }
"""


def page_of(report: Report) -> str:
    """`report` as the text of one HTML file, which needs no network and no other file."""
    from plotly.offline import get_plotlyjs

    name = escape_html(report.subject.name)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>strobe report: {name}</title>\n<style>{_STYLE}</style>\n"
        f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n"
        f"<h1>{name}</h1>\n{_head(report)}{''.join(map(_section, report.sections))}"
        f"<footer><hr><p>Made {datetime.now(UTC).isoformat(timespec='seconds')} by strobe {__version__}. Every figure "
        "can be saved as SVG with the camera above it.</p></footer>\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    subject = report.subject
    facts = loading.facts(subject.loaded) | {"Training length": f"{subject.train_length} ({subject.train_length_from})"}
    said = "".join(f"<div><dt>{escape_html(k)}</dt><dd>{escape_html(v)}</dd></div>" for k, v in facts.items())
    rows = "".join(
        f'<tr><td><a href="#{s.analysis.name}">{escape_html(s.analysis.title)}</a></td>'
        f"<td>{escape_html(s.analysis.question)}</td><td>{_status(s)}</td></tr>"
        for s in report.sections
    )
    heads = "<tr><th>Analysis</th><th>Question</th><th>Here</th></tr>"
    return (
        f'<dl class="facts">{said}</dl>\n<table>{heads}{rows}</table>\n'
        f"{_shown(report)}<p class='note'>Weights (SHA-256): {escape_html(subject.model.weights_hash())}. Seed "
        f"{subject.seed}.</p>\n"
    )


def _shown(report: Report) -> str:
    subject = report.subject
    if not subject.ids:
        return "<p>The model reads real numbers; it is shown no text.</p>\n"
    if not subject.reads_text:
        return f"<p>It is shown the tokens</p><pre>{' '.join(map(str, subject.ids))}</pre>\n"
    return f"<p>It is shown the text</p><pre>{escape_html(str(subject.model.to_string(list(subject.ids))))}</pre>\n"


def _status(section: Section) -> str:
    if section.errors:
        return f"<strong>failed</strong> ({len(section.errors)} of {max(len(section.done), 1)} parts)"
    return "does not apply" if section.does_not_apply else "done"


def _section(section: Section) -> str:
    one = section.analysis
    if section.does_not_apply:
        body = _absent(section.does_not_apply)
    elif section.error is not None:
        body = _failure(section.error)
    else:
        body = "".join(map(_part, section.done))
    return (
        f'<section id="{one.name}">\n<h2>{escape_html(one.title)}</h2>\n<p class="question">'
        f'{escape_html(one.question)}</p>\n<p class="about">{escape_html(one.about)}</p>\n{body}</section>\n'
    )


def _absent(why: str) -> str:
    return f'<p class="absent">This does not apply. {escape_html(why)}</p>\n'


def _failure(error: Exception) -> str:
    return f'<p class="failed"><strong>Failed.</strong> {escape_html(in_words(error))}</p>\n'


def _part(done: Done) -> str:
    note = f'<p class="note">{escape_html(done.part.note)}</p>\n' if done.part.note else ""
    if done.result is None:
        told = _absent(done.does_not_apply) if done.error is None else _failure(done.error)
        return f"<h3>{escape_html(done.part.title)}</h3>\n{note}{told}"
    result = done.result
    figures = "".join(_figure(figure, f"{done.part.name}-{i}") for i, figure in enumerate(done.figures))
    provenance = result.provenance.summary()
    # What a summary repeats of the provenance is unfolded with it.
    said = {line.strip() for line in provenance.splitlines()}
    summary = "\n".join(line for line in result.summary().splitlines() if line.strip() not in said)
    return (
        f"<h3>{escape_html(done.part.title)}</h3>\n{note}<pre>{escape_html(summary)}</pre>\n{figures}"
        f"<p><strong>Control:</strong> {escape_html(result.provenance.control or 'none')}</p>\n"
        f"<details><summary>Where this comes from</summary><pre>{escape_html(provenance)}</pre></details>\n"
    )


def _figure(figure: "plotly.graph_objects.Figure", name: str) -> str:
    import plotly.io as pio

    config: dict[str, Any] = {
        "displaylogo": False, "showSendToCloud": False, "responsive": True,
        "toImageButtonOptions": {"format": "svg", "filename": name},
    }  # fmt: skip
    drawn = pio.to_html(
        figure, include_plotlyjs=False, include_mathjax=False, full_html=False, config=config, div_id=f"figure-{name}"
    )
    title = figure.layout.title.text or name
    return f'<figure aria-label="{escape_html(show(str(title)))}">{drawn}</figure>\n'
