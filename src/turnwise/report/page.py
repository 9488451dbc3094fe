"""The page: one self-contained HTML file out of a template, without scripts and without a single outside resource."""

from collections.abc import Iterable
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from turnwise.report.curves import figure_3, training_metrics
from turnwise.report.episodes import EpisodeView, view_episode
from turnwise.report.record import Episode, RunRecord

_PURPOSES = {"collect": "collected for fine-tuning", "train": "training", "evaluate": "held-out evaluation"}


def render_page(run: RunRecord) -> str:
    """The whole report as HTML. What models and sandboxes wrote is escaped; only our own charts and styles are not."""
    environment = Environment(
        loader=PackageLoader("turnwise.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "duration": _duration, "signed": _signed}
    style, _, _ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    return environment.get_template("report.html").render(
        run=run,
        style=Markup(style),
        curves=[(chart, Markup(chart.svg)) for chart in figure_3(run)],
        metrics=[(chart, Markup(chart.svg)) for chart in training_metrics(run)],
        sample_groups=_sample_groups(run.samples),
        purposes=_PURPOSES,
    )


def _sample_groups(samples: Iterable[Episode]) -> list[tuple[str, list[EpisodeView]]]:
    """The sample episodes under headings of stage and purpose, in the order they come."""

    def heading(episode: Episode) -> str:
        return f"{episode.key.stage} · {_PURPOSES[episode.key.purpose]}"

    return [(title, [view_episode(episode) for episode in group]) for title, group in groupby(samples, heading)]


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
