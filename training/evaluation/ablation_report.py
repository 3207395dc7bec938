"""The report of the ablation: docs/ablation.md and docs/ablation.png, from the metrics of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.config import Config

Result = Mapping[str, Any]
ALIGNED = {"none": "plain upsample-and-add", "fa": "+ AlignFA", "cm": "+ AlignCM", "fa+cm": "+ both (AlignSeg)"}
"""Value of training.train --align -> name in the table."""

MARK = "<!-- What stands below this line was written by hand; python -m training.ablation keeps it. -->"

TEXT = """\
# Does learned alignment help?

AlignSeg's claim (Huang et al., TPAMI 2022) is that features should be aligned by learned offsets before they are added.
To test this, four networks were trained that differ only in their alignment:

- **plain upsample-and-add**: low + upsample(high), as in FPN, in place of AlignFA; in place of AlignCM the same two
  projections, but the pooled 3x3 context is upsampled instead of sampled at offsets.
- **+ AlignFA**, **+ AlignCM**, **+ both**: offsets learned in one, the other, or both.

Variants differ only in their offset generators. All have the pooled context, so its alignment is measured, not its
presence. For each seed all variants start from the same weights (offsets start at zero, where all four compute the same
function) and train on the same views in the same order. The weights after the last step are measured; none are
selected.

{table}

mIoU and boundary F-score (tolerance {tolerance:g} px; defined in `training/evaluation`) are measured on
{pictures} whole images of {data} {measured} in float32, as mean ± standard deviation over {seeds}. Δ compares runs of
the same seed with the plain one. Parameters and FLOPs (a multiply-add counts as two) are those of one image of
{height}x{width} without the auxiliary head. Warping is upsampling and sampling; norms, activations and additions of
maps are not counted (`model_export/flops.py`).

![mIoU and boundary F-score of each run]({figure})

{findings}

Schedule: {schedule};
otherwise the defaults of `python -m training.train --help`.

    {command}

{mark}
"""


def write(path: Path, results: Sequence[Result], command: str, config: Config) -> None:
    """Write the report to `path` and the figure beside it. Text below MARK, written by hand, is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = path.with_suffix(".png")
    draw(results, figure)
    first, seeds = results[0], sorted({result["seed"] for result in results})
    text = TEXT.format(
        table=table(results),
        findings="\n".join(findings(results)),
        tolerance=first["boundary_tolerance_px"],
        pictures=first["pictures"],
        data=config.data,
        measured=f"drive {config.hold_out}, which no network was trained on," if config.hold_out else "val",
        seeds=f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed (no deviation)",
        height=first["size"][0],
        width=first["size"][1],
        figure=figure.name,
        schedule=_schedule(config),
        command=command,
        mark=MARK,
    )
    by_hand = path.read_text().partition(MARK)[2] if path.exists() else ""
    path.write_text(text.rstrip("\n") + (by_hand or "\n"))


def table(results: Sequence[Result]) -> str:
    """A Markdown table with a row per variant."""
    lines = [
        "| variant | mIoU % | Δ | boundary F % | Δ | parameters | GFLOP | of which warping |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for align, name in ALIGNED.items():
        runs = _runs_of(results, align)
        cells = [
            *(
                cell
                for key in ("miou", "boundary_f")
                for cell in (_spread(_values(runs, key)), _delta(results, runs, key))
            ),
            f"{runs[0]['parameters'] / 1e6:.3f} M",
            f"{runs[0]['flops'] / 1e9:.2f}",
            f"{runs[0]['warping_flops'] / 1e9:.3f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def findings(results: Sequence[Result]) -> list[str]:
    """A line per variant: in how many seeds it was better than the plain one."""
    lines = []
    for align, name in list(ALIGNED.items())[1:]:
        runs = _runs_of(results, align)
        better = {key: sum(d > 0 for d in _differences(results, runs, key)) for key in ("miou", "boundary_f")}
        lines.append(
            f"- {name}: mIoU better than plain in {better['miou']} of {len(runs)} seeds, "
            f"boundary F in {better['boundary_f']} of {len(runs)}."
        )
    return lines


def _runs_of(results: Sequence[Result], align: str) -> list[Result]:
    return sorted((result for result in results if result["align"] == align), key=lambda result: result["seed"])


def _values(runs: Sequence[Result], key: str) -> list[float]:
    return [100 * result[key] for result in runs]


def _differences(results: Sequence[Result], runs: Sequence[Result], key: str) -> list[float]:
    plain = _values(_runs_of(results, "none"), key)
    return [value - base for value, base in zip(_values(runs, key), plain, strict=True)]


def _spread(values: Sequence[float], sign: str = "") -> str:
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.2f}{deviation}"


def _delta(results: Sequence[Result], runs: Sequence[Result], key: str) -> str:
    return "" if runs[0]["align"] == "none" else _spread(_differences(results, runs, key), "+")


def _schedule(config: Config) -> str:
    """The options that differ from the defaults."""
    fixed = {"align", "seed", "root", "workers", "eval_every"}
    default = asdict(Config())
    changed = {k: v for k, v in asdict(config).items() if v != default[k] and k not in fixed}
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in changed.items()) or "the defaults"


def draw(results: Sequence[Result], path: Path) -> None:
    """Write a PNG with a dot per run and a bar at each mean: mIoU left, boundary F-score right."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, key, name in zip(
        figure.subplots(1, 2), ("miou", "boundary_f"), ("mIoU, %", "boundary F-score, %"), strict=True
    ):
        for x, align in enumerate(ALIGNED):
            values = _values(_runs_of(results, align), key)
            axes.plot([x - 0.25, x + 0.25], [mean(values)] * 2, color=f"C{x}", linewidth=2)
            axes.plot([x] * len(values), values, "o", color=f"C{x}", alpha=0.6)
        labels = [label.replace(" (", "\n(").replace("plain ", "plain\n") for label in ALIGNED.values()]
        axes.set_xticks(range(len(ALIGNED)), labels, fontsize=9)
        axes.set_ylabel(name)
        axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=120)
