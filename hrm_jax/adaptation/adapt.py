"""From new ARC tasks to a submission: folds, the adaptation, the vote.

Layout of the working directory::

    adaptation.json    what was asked for; the same command resumes
    time.json          seconds used
    fold_K/            a run with one demonstration of every task held out
    final/             the adaptation to all demonstrations
      tasks/           what the set is built from: no output of any test
      dataset/  run/   the set, and an ordinary run on it
      answers/         of its last checkpoints, one file per view
      ended.json       stages that the clock ended, with the minutes that there were
    report.html        attempts, votes, confidence and steps of every task
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import json
import math
from pathlib import Path
import time
from typing import Any

import jax

from hrm_jax import files, partitioning, train, train_state
from hrm_jax.adaptation import settings as settings_lib
from hrm_jax.adaptation import task_files
from hrm_jax.adaptation.answers import Answers, Ballot
from hrm_jax.adaptation.budget import Budget
from hrm_jax.adaptation.settings import Settings
from hrm_jax.adaptation.task_files import Tasks
from hrm_jax.checkpoint import compatible, layout
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import augment, records
from hrm_jax.errors import CheckpointError, PredictionError, WorkdirError
from hrm_jax.inference.solver import Solver
from hrm_jax.interop import formats
from hrm_jax.run import build_data, plan
from hrm_jax.run import workdir as workdir_lib
from hrm_jax.scoring import arc_votes
from hrm_jax.types import Weights
from hrm_jax.visualize import arc_report

RECORD, REPORT, ENDED = 'adaptation.json', 'report.html', 'ended.json'
_VOCAB_SIZE = augment.ARC_COLOURS + augment.FIRST_COLOUR
_MOST_FOR_VOTE = 0.4  # of the time of a part, kept for its vote
Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of it.

    Attributes:
      submission: complete, whatever happened.
      expected: share of held-out demonstrations that one of two attempts had right; None: none
        was held out, or there was no time.
      held_out: their number.
      signal: of ``train.Outcome``: a stop signal ended it; the same command resumes.
    """

    submission: arc_votes.Submission
    expected: float | None
    held_out: int
    signal: str = ''


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the adaptation begins.

    Attributes:
      config: the experiment that is changed.
      checkpoint: of the weights; '': from scratch.
    """

    config: ExperimentConfig
    checkpoint: str = ''

    @property
    def side(self) -> int:
        """Rows and columns of the model's canvas."""
        return math.isqrt(self.config.model.seq_len) if self.checkpoint else augment.ARC_SIDE


def from_checkpoint(selector: str) -> Origin:
    """The experiment of a checkpoint of any format.

    Raises:
      CheckpointError: there is none, or it is not of a model of ARC.
    """
    saved, path = formats.open_model(selector)
    model = saved.config.model
    CheckpointError.require(
        model.vocab_size == _VOCAB_SIZE and math.isqrt(model.seq_len) ** 2 == model.seq_len,
        f'{path} must be the checkpoint of an ARC model, with model.vocab_size={_VOCAB_SIZE} and a '
        f'square canvas (model.seq_len=900); it has {model.vocab_size} and {model.seq_len}.',
    )
    return Origin(saved.config, str(path) if Path(str(path)).exists() else selector)


class _Part:
    """One run on some of the demonstrations, and the answers of its checkpoints."""

    def __init__(
        self, folder: Path, contents: Mapping[str, Any], settings: Settings, origin: Origin,
        split: str, log: Log,
    ):  # fmt: skip
        self.folder, self.settings, self._origin, self._log = folder, settings, origin, log
        source, data = folder / 'tasks', folder / 'dataset'
        if not source.exists():
            write_tasks(source, contents)
        build_data.build_arc(
            source, data, num_aug=settings.augmentations, seed=settings.seed, allow_leaks=True,
            side=origin.side, test_subsets=('held_out',) if split == 'test' else (),
        )  # fmt: skip
        metadata = records.load(str(data), 'train').metadata
        watched = 'test' if split == 'test' else 'train'
        self.config = settings_lib.experiment(
            origin.config, settings, metadata, str(data), watched, bool(origin.checkpoint)
        )
        self.run = folder / 'run'
        self.answers = None
        if (data / split).is_dir():
            self.answers = Answers(
                folder / 'answers', records.load(str(data), split), settings.views
            )
        self._solver: Solver | None = None

    def train(self, budget: Budget, deadline: float) -> str:
        """Trains; returns the signal that ended it, '' where all steps or the time are done."""
        steps = layout.steps(self.run)
        done = bool(steps) and steps[-1] >= self.settings.steps
        if done or time.monotonic() >= deadline or self._has_ended('training'):
            return ''
        if budget.capped and self.answers is not None:
            self.answers.measure(self._solver_of(_initial(self.config)))
            needed = self.answers.seconds * self.answers.chunks * self.settings.checkpoints
            room = deadline - time.monotonic()
            deadline -= min(1.2 * needed + self.answers.seconds, _MOST_FOR_VOTE * max(room, 0))
        outcome = train.train(
            self.config, self.run, self._origin.checkpoint, log=self._log, deadline=deadline
        )
        if outcome.signal != workdir_lib.TIME_LIMIT:
            return outcome.signal
        self._end('training')
        return ''

    def _has_ended(self, stage: str) -> bool:
        """Whether the clock ended a stage before a restart; with more minutes it continues."""
        path = self.folder / ENDED
        ended = files.read_json(path, WorkdirError, dict) if path.exists() else {}
        return 0 < self.settings.minutes <= ended.get(stage, 0)

    def _end(self, stage: str) -> None:
        path = self.folder / ENDED
        ended = files.read_json(path, WorkdirError, dict) if path.exists() else {}
        files.write_text(path, json.dumps({**ended, stage: self.settings.minutes}))

    def vote(self, deadline: float) -> dict[str, dict[int, Ballot]]:
        """Answers all tests with the last checkpoints, as far as the time goes."""
        there = layout.steps(self.run)
        if self.answers is None or not there:
            return {}
        steps = self.settings.voting_steps
        if not set(steps) <= set(there):  # the time was over before
            steps = sorted(there, reverse=True)[: self.settings.checkpoints]
        for step in steps:
            if self.answers.complete(step):
                continue
            if time.monotonic() >= deadline or self._has_ended('answers'):
                break
            saved, _ = formats.open_model(layout.root(self.run) / layout.FOLDER / str(step))
            weights = saved.inference_weights(self.config.eval.use_ema)
            if not self.answers.answer(self._solver_of(weights), step, weights, deadline):
                self._end('answers')
                break
        return self.answers.ballots(steps)

    def _solver_of(self, weights: Weights) -> Solver:
        if self._solver is None:
            config = _with_sizes(self.config)
            task = records.load(self.config.data.path, 'train').metadata.task_of()
            self._solver = Solver(config, weights, task, 'arc')
        return self._solver


def _with_sizes(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment with the sizes of its data filled in."""
    return plan.make_plan(config).config


def _initial(config: ExperimentConfig) -> Weights:
    """Weights of the right shapes, to time what they take."""
    config = _with_sizes(config)
    mesh = partitioning.make_mesh(jax.local_devices()[:1])
    return jax.device_get(train_state.create(config, mesh).weights)


def run(
    asked: Tasks,
    origin: Origin,
    settings: Settings,
    workdir: Path,
    submission: Path,
    started: float,
    log: Log = functools.partial(print, flush=True),
) -> Result:
    """Adapts to the tasks and writes the submission.

    Args:
      asked: the tasks.
      origin: a checkpoint, or the experiment to train from scratch.
      settings: of the adaptation.
      workdir: folder of the adaptation; the same call resumes.
      submission: file to write; it is complete from the beginning.
      started: ``time.monotonic()`` when the command began.
      log: prints a message.

    Raises:
      UserError: of any kind; what is wrong and what to do.
    """
    asked = task_files.fitting(asked, origin.side)
    workdir = workdir_lib.prepare(workdir)
    with workdir_lib.lock(workdir, log):
        is_new = _check_request(workdir, asked, origin, settings)
        if is_new or not submission.exists():
            _write_submission(submission, asked, {})
        budget = Budget(workdir, settings.minutes, started)
        with budget.recorded():
            return _run(asked, origin, settings, workdir, submission, budget, log)


def _run(asked, origin, settings, workdir, submission, budget, log) -> Result:
    for name, reason in asked.left_out.items():
        log(f'left out: {name}: {reason}')
    log(f'{len(asked.tasks)} tasks of {len(asked.tests)}, {sum(asked.tests.values())} tests')
    found = files.read_json(submission, PredictionError, dict)
    expected: list[bool] = []
    folds = [fold for fold in range(settings.folds) if _held_out(asked, fold)]
    for number, fold in enumerate(folds):
        end = budget.share(len(folds) - number + 1)
        log(f'fold {fold + 1}: one demonstration of every task is held out')
        part = _Part(
            workdir / f'fold_{fold + 1}', _held_out(asked, fold), settings, origin, 'test', log
        )
        if signal := part.train(budget, end):
            return Result(found, None, 0, signal)
        if ballots := part.vote(end):
            right = _right(part, ballots)
            expected += right
            log(f'fold {fold + 1}: {sum(right)} of {len(right)} held-out demonstrations are right')
        else:
            log(f'fold {fold + 1}: there was no time for it')
    log('adaptation to all demonstrations')
    contents = {'tasks': asked.tasks}
    part = _Part(workdir / 'final', contents, settings, origin, 'predict', log)
    end = budget.share(1)
    if signal := part.train(budget, end):
        return Result(found, None, 0, signal)
    ballots = part.vote(end)
    if ballots:
        found = _write_submission(submission, asked, ballots)
    share = sum(expected) / len(expected) if expected else None
    arc_report.write(workdir / REPORT, asked.tasks, ballots, asked.left_out, share)
    unanswered = [name for name in asked.tests if name not in ballots and asked.tests[name]]
    if unanswered:
        log(f'without an answer: {", ".join(unanswered)}')
    if share is not None:
        log(f'expected from {len(expected)} held-out demonstrations: {share:.1%} of the tests')
    log(f'submission: {submission}; page: {workdir / REPORT}; {budget.used:.0f} s')
    return Result(found, share, len(expected))


def _check_request(workdir: Path, asked: Tasks, origin: Origin, settings: Settings) -> bool:
    """Compares a request with that of the workdir; returns whether it is the first one."""
    now = json.loads(json.dumps({
        'settings': dataclasses.asdict(settings) | {'minutes': None},
        'checkpoint': origin.checkpoint,
        'config': origin.config.to_dict(),
        'tasks': asked.tasks,
        'tests': asked.tests,
    }))  # fmt: skip
    path = workdir / RECORD
    if not path.exists():
        files.write_text(path, json.dumps(now))
        return True
    before = files.read_json(path, WorkdirError, dict)
    changed = compatible.differences(before, now, places=('before', 'now'))
    WorkdirError.require(
        not changed,
        f'{workdir} was begun with other settings or tasks:\n  '
        + '\n  '.join(changed[:10])
        + '\nUse the old ones to resume, or another --workdir.',
    )
    return False


def write_tasks(folder: Path, contents: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the tasks of every subset, in their order."""
    with files.new_folder(folder) as beside:
        for subset, listed in contents.items():
            (beside / subset).mkdir()
            for number, (name, task) in enumerate(listed.items()):
                text = json.dumps({'name': name, **task})
                (beside / subset / f'{number:06d}.json').write_text(text, encoding='utf-8')


def _held_out(asked: Tasks, fold: int) -> dict[str, dict[str, Any]]:
    """The tasks with one demonstration each as their only test, and those that have but one.

    Returns:
      Subset -> tasks; {} where no task has two demonstrations.
    """
    held: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, task in asked.tasks.items():
        pairs = task['train']
        if len(pairs) < 2:
            others[name] = {'train': pairs, 'test': []}
            continue
        place = (len(pairs) - 1 - fold) % len(pairs)
        rest = pairs[:place] + pairs[place + 1 :]
        held[name] = {'train': rest, 'test': [pairs[place]]}
    others = {name: task for name, task in others.items() if task['train']}
    return {'held_out': held} | ({'others': others} if others else {}) if held else {}


def _right(part: _Part, ballots: Mapping[str, Mapping[int, Ballot]]) -> list[bool]:
    """For every held-out demonstration whether one of two attempts is its output."""
    if part.answers is None:
        return []
    found = []
    for name, answers in part.answers.truth().items():
        for number, answer in enumerate(answers):
            ballot = ballots.get(name, {}).get(number)
            best = ballot.votes.best() if ballot is not None else []
            found.append(any(one.answer == answer for one in best))
    return found


def _write_submission(
    path: Path, asked: Tasks, ballots: Mapping[str, Mapping[int, Ballot]]
) -> arc_votes.Submission:
    """Writes the competition's form: every task that is asked for, in the order of its file."""
    found = {
        name: [
            arc_votes.attempts(ballot.votes if (ballot := ballots.get(name, {}).get(k)) else None)
            for k in range(count)
        ]
        for name, count in asked.tests.items()
    }
    arc_votes.check_submission(found, asked.tests)
    files.write_text(path, json.dumps(found))
    return found
