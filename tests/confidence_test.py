"""Confidence: calibration of q_halt and accuracy at coverage, worked out by hand."""

import json
import math

import numpy as np
import pytest

from hrm_jax.cli import score
from hrm_jax.errors import PredictionError
from hrm_jax.scoring import confidence, predictions
from tests import commands


def logit(chance: float) -> float:
    return math.log(chance / (1 - chance))


def test_brier_bins_and_coverage_by_hand():
    q = np.array([logit(0.9), logit(0.9), logit(0.3), logit(0.3)])
    right = np.array([True, False, True, False])
    measured = confidence.measure(q, right, bins=10)
    assert measured.accuracy == 0.5
    assert measured.brier == pytest.approx((0.01 + 0.81 + 0.49 + 0.09) / 4)
    assert measured.brier_of_accuracy == 0.25
    assert measured.calibration_error == pytest.approx((0.4 + 0.2) / 2)
    assert [(one.puzzles, one.accuracy) for one in measured.bins] == [(2, 0.5), (2, 0.5)]
    assert measured.bins[1].error == pytest.approx(math.sqrt(0.25 / 2))
    # Equal ones count by their mean, wherever they stand in the file.
    assert set(measured.coverage.values()) == {0.5}


def test_order_matters_to_coverage_and_not_to_accuracy():
    right = np.arange(10) < 5
    rising, falling = (confidence.measure(q, right) for q in (np.arange(10.0), -np.arange(10.0)))
    assert rising.accuracy == falling.accuracy == 0.5
    assert falling.coverage[0.5] == 1.0
    assert rising.coverage[0.5] == 0.0
    assert falling.coverage[0.8] == pytest.approx(5 / 8)
    assert rising.coverage[1.0] == falling.coverage[1.0] == 0.5
    assert falling.brier != rising.brier
    large = confidence.measure(np.array([800.0, 700.0, -900.0]), np.array([True, False, False]))
    assert large.coverage[0.1] == 1.0  # both are 1 as probabilities; the logits still differ
    assert large.bins[-1].high == 1.0


def test_a_calibrated_model_has_no_calibration_error():
    q = np.repeat([logit(0.25), logit(0.75)], 400)
    right = np.concatenate([np.arange(400) < 100, np.arange(400) < 300])
    measured = confidence.measure(q, right)
    assert measured.calibration_error == pytest.approx(0, abs=1e-9)
    assert measured.brier == pytest.approx(0.1875)
    assert measured.brier_of_accuracy == pytest.approx(0.25)


@pytest.mark.parametrize(
    ('q', 'right', 'bins', 'message'),
    [
        ([], [], 10, 'at least one puzzle'), ([np.nan], [True], 10, 'must be finite'),
        ([0.0], [True], 0, 'at least 1'), ([0.0, 1.0], [True], 10, 'one outcome for each'),
    ],
)  # fmt: skip
def test_what_cannot_be_measured(q, right, bins, message):
    with pytest.raises(PredictionError, match=message):
        confidence.measure(np.array(q), np.array(right, bool), bins)


def test_the_command_reads_predictions_and_draws(tmp_path, capsys):
    labels = np.array([[1, 2], [1, 2], [1, -100], [-100, -100]], np.int16)
    answers = np.array([[1, 2], [1, 1], [1, 9], [0, 0]], np.uint8)
    q_halt = np.array([2, -1, 1, 5], np.float32)
    with predictions.Writer(tmp_path / 'p', 'all', {}) as writer:
        writer.add(predictions=answers, labels=labels, q_halt=q_halt)
    picture = tmp_path / 'plot.png'
    assert commands.exit_code(score.main, 'confidence', tmp_path / 'p', '--plot', picture) == 0
    values = json.loads(capsys.readouterr().out)
    assert values['puzzles'] == 3  # the last row has nothing to be scored
    assert values['accuracy'] == pytest.approx(2 / 3)
    assert values['coverage']['0.6'] == 1.0
    assert picture.read_bytes().startswith(b'\x89PNG')
    with predictions.Writer(tmp_path / 'p', 'all', {}) as writer:
        writer.add(predictions=answers, labels=labels, q_halt=0 * q_halt)
    assert commands.exit_code(score.main, 'confidence', tmp_path / 'p') == 1
    assert 'the same for all' in capsys.readouterr().err
