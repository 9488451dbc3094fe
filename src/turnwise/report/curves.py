"""The charts, as SVG that takes its colours from the page: the same drawing serves light and dark."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, nan
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from turnwise.evaluation import StageResult
from turnwise.report.record import CurvePoint, RunRecord, StageSpan
from turnwise.store import Update

_SVG = "http://www.w3.org/2000/svg"
# matplotlib wants real colours: each of these stands for a variable of the page's style sheet, swapped in at the end.
_INK, _FAINT, _GRID, _HELD_OUT, _TRAINING = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {
    _INK: "var(--ink)",
    _FAINT: "var(--faint)",
    _GRID: "var(--line)",
    _HELD_OUT: "var(--held-out)",
    _TRAINING: "var(--training)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "turnwise",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _FAINT,
    "ytick.labelcolor": _FAINT,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


@dataclass(frozen=True)
class Chart:
    """One drawing for the page: `key` names it in the document, `svg` is the element's source."""

    key: str
    title: str
    svg: str


@dataclass(frozen=True)
class _Figure3:
    """One of the paper's four curves: what is read off a `StageResult`, and whether it is a share of 1.

    Points whose k differs from the table's (fewer runs) are left out where `same_k`: they are another quantity.
    """

    key: str
    title: str
    read: Callable[[StageResult], float]
    share: bool = True
    with_sem: bool = False
    same_k: bool = False


_FIGURE_3 = (
    _Figure3("pass-at-1", "Pass@1", lambda result: result.pass_at_1, with_sem=True),
    _Figure3("pass-at-k", "Pass@{k}", lambda result: result.pass_at_k, same_k=True),
    _Figure3("submit-rate", "Episodes ended by submit", lambda result: result.submit_rate),
    _Figure3("mean-turns", "Turns per episode (mean)", lambda result: result.mean_turns, share=False),
)
# What the trainer reports per optimizer step and how the page calls it; a metric that a run lacks draws no chart.
_STEP_METRICS = {
    "entropy": "Entropy of the policy (nats per token)",
    "clip_fraction_high": "Share of tokens clipped above",
    "clip_fraction_low": "Share of tokens clipped below",
    "grad_norm": "Gradient norm before clipping",
    "mismatch_mean_abs": "Engine-trainer mismatch (mean |Δ log-prob|)",
    "loss": "Loss",
}


def figure_3(run: RunRecord) -> list[Chart]:
    """The four curves of the paper's figure 3: training episodes and held-out evaluation, Pass@1 with its SEM."""
    k = run.stages[-1].k if run.stages else 1
    return [_draw_curve(spec, k, run) for spec in _FIGURE_3]


def training_metrics(run: RunRecord) -> list[Chart]:
    """One small chart for each known metric that the run's optimizer steps report."""
    known = [name for name in _STEP_METRICS if any(_value(update, name) is not None for update in run.updates)]
    return [_draw_metric(name, _STEP_METRICS[name], run.updates) for name in known]


def _draw_curve(spec: _Figure3, k: int, run: RunRecord) -> Chart:
    title = spec.title.format(k=k)
    training, held_out = (
        [point for point in points if not spec.same_k or point.result.k == k]
        for points in (run.training, run.evaluations)
    )
    with rc_context(_STYLE):
        figure, axes = _canvas(4.9, 2.75)
        _mark_stages(axes, run.spans)
        titles = {
            "training": _plot(axes, training, spec, _TRAINING, "training", marker=None),
            "held-out": _plot(axes, held_out, spec, _HELD_OUT, "held-out", marker="o"),
        }
        if spec.with_sem:
            _plot_sem(axes, held_out)
        axes.set_xlabel("training iterations")
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        if spec.share:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
        return Chart(spec.key, title, _to_svg(figure, title, titles))


def _canvas(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(length=0, pad=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.grid(visible=False)
    return figure, axes


def _mark_stages(axes: Axes, spans: Sequence[StageSpan]) -> None:
    for span in spans:
        axes.axvline(span.stop, color=_GRID, linewidth=1.0, linestyle=(0, (3, 3)), zorder=0)
        middle = (span.start + span.stop) / 2
        axes.annotate(
            span.name, (middle, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=_FAINT, size=8
        )


def _plot(
    axes: Axes, points: Sequence[CurvePoint], spec: _Figure3, color: str, group: str, marker: str | None
) -> list[str]:
    """Draw one line; returns what the page says when the reader points at each of its points."""
    xs, ys = [point.x for point in points], [spec.read(point.result) for point in points]
    dash = "-" if marker else (0, (4, 1.6))
    axes.plot(xs, ys, color=color, linestyle=dash, zorder=2, linewidth=1.8 if marker else 1.3)
    axes.plot(xs, ys, color=color, linestyle="none", marker=marker or ".", zorder=3, gid=group)
    return [_caption(point, spec, group) for point in points]


def _caption(point: CurvePoint, spec: _Figure3, group: str) -> str:
    value = spec.read(point.result)
    shown = f"{value:.1%}" if spec.share else f"{value:.2f}"
    if spec.with_sem and point.result.sem is not None:
        shown += f" ± {point.result.sem:.1%} (SEM, {point.result.runs} runs)"
    return f"{point.stage}, iteration {point.x:g}, {group}: {shown}"


def _plot_sem(axes: Axes, points: Sequence[CurvePoint]) -> None:
    """Error bars, and a band between neighbours that both have one; a single run has none, and breaks the band."""
    xs, ys = [point.x for point in points], [point.result.pass_at_1 for point in points]
    sems = [nan if point.result.sem is None else point.result.sem for point in points]
    low, high = [y - sem for y, sem in zip(ys, sems, strict=True)], [y + sem for y, sem in zip(ys, sems, strict=True)]
    axes.fill_between(xs, low, high, color=_HELD_OUT, alpha=0.18, linewidth=0, zorder=1)
    axes.errorbar(xs, ys, yerr=sems, fmt="none", ecolor=_HELD_OUT, elinewidth=1.1, capsize=2.5, zorder=2)


def _draw_metric(name: str, title: str, updates: Sequence[Update]) -> Chart:
    known = [(step, update) for step, update in enumerate(updates) if _value(update, name) is not None]
    with rc_context(_STYLE):
        figure, axes = _canvas(3.2, 1.7)
        for step, (previous, update) in enumerate(pairwise(updates)):
            if update.stage != previous.stage:
                axes.axvline(step + 0.5, color=_GRID, linewidth=1.0, linestyle=(0, (3, 3)), zorder=0)
        xs, ys = [step for step, _ in known], [update.metrics[name] for _, update in known]
        axes.plot(xs, ys, color=_HELD_OUT, linewidth=1.3)
        axes.plot(xs, ys, color=_HELD_OUT, linestyle="none", marker=".", markersize=4, gid="steps")
        axes.set_xlabel("optimizer steps")
        captions = [f"{update.stage}, step {step}: {update.metrics[name]:.4g}" for step, update in known]
        return Chart(f"metric-{name.replace('_', '-')}", title, _to_svg(figure, title, {"steps": captions}))


def _value(update: Update, name: str) -> float | None:
    """The metric of a step, None where the step has none that can be drawn."""
    value = update.metrics.get(name)
    return value if value is not None and isfinite(value) else None


def _to_svg(figure: Figure, title: str, captions: dict[str, list[str]]) -> str:
    """The figure as one inline element: page colours, no declared size, a caption on every point, no stray ids."""
    raw = io.BytesIO()
    figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None})
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(raw.getvalue())
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for size in ("width", "height"):
        root.attrib.pop(size)
    root.attrib.update({"role": "img", "aria-label": title, "class": "chart"})
    for group in root.iter(f"{{{_SVG}}}g"):
        name = group.attrib.pop("id", None)
        if name in captions:
            group.set("class", name)
            _caption_points(group, captions[name])
    source = ElementTree.tostring(root, encoding="unicode")
    for stand_in, variable in _VARIABLES.items():
        source = source.replace(stand_in, variable)
    return source


def _caption_points(group: ElementTree.Element, captions: list[str]) -> None:
    points = list(group.iter(f"{{{_SVG}}}use"))
    for point, caption in zip(points, captions, strict=True):
        point.set("class", "point")
        ElementTree.SubElement(point, f"{{{_SVG}}}title").text = caption
