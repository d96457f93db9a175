"""Reliability plot: confidence against accuracy, and accuracy at coverage."""

import os
import pathlib

from hrm_jax.scoring.confidence import Confidence
from hrm_jax.visualize import figures

_BLUE, _GREY = '#2f5fd0', figures.LINE


def save_reliability(
    path: str | os.PathLike, measured: Confidence, title: str = ''
) -> pathlib.Path:
    """Draws what was measured and writes it; the kind of picture is that of the path's suffix.

    Args:
      path: of the picture (.png, .svg, .pdf).
      measured: from ``scoring.confidence``.
      title: above the plot.
    """
    figure = figures.new_figure(9.6, 4.8)
    left, right = figure.subplots(1, 2)
    widest = max(one.puzzles for one in measured.bins)
    for one in measured.bins:
        # Grey: where the puzzles are; its height is the share of the fullest bin.
        left.bar(
            one.low, one.puzzles / widest, width=one.high - one.low, align='edge',
            color='#e7eaf2', edgecolor='#ffffff', zorder=0,
        )  # fmt: skip
    left.plot([0, 1], [0, 1], color=_GREY, linestyle='--', linewidth=1, label='calibrated')
    left.errorbar(
        [one.confidence for one in measured.bins], [one.accuracy for one in measured.bins],
        yerr=[one.error for one in measured.bins], color=_BLUE, marker='o', capsize=3,
        linewidth=1.5, label='accuracy +- standard error',
    )  # fmt: skip
    left.bar(0, 0, color='#e7eaf2', label=f'puzzles (fullest bin: {widest:,})')
    left.set(
        xlim=(0, 1), ylim=(0, 1.05), xlabel='confidence, sigmoid(q_halt)', ylabel='accuracy',
        title=f'Brier {measured.brier:.4f} (constant {measured.brier_of_accuracy:.4f}), '
              f'calibration error {measured.calibration_error:.4f}',
    )  # fmt: skip
    left.legend(loc='best', fontsize=8)
    coverages = list(measured.coverage)
    right.axhline(measured.accuracy, color=_GREY, linestyle='--', linewidth=1, label='all puzzles')
    right.plot(coverages, list(measured.coverage.values()), color=_BLUE, marker='o')
    right.set(
        xlim=(0, 1.02), ylim=(0, 1.05), xlabel='coverage: share of the most confident puzzles',
        ylabel='accuracy on them',
        title=f'{measured.puzzles:,} puzzles, {measured.accuracy:.1%} right',
    )  # fmt: skip
    right.legend(loc='lower left', fontsize=8)
    for axes in (left, right):
        axes.title.set_fontsize(9)
        axes.spines[['top', 'right']].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=10)
    return figures.save(figure, path)
