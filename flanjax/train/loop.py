"""The training loop, top to bottom: evaluate, save, next batch, step, log.

Order matters and must not change: scores and checkpoints at step k describe the state
before update k, and the data position moves on only with the update it fed, so that a
run killed anywhere and started again is the same run.
"""

from flanjax.config import RunConfig
from flanjax.data.loader import make_loader
from flanjax.errors import EXIT_PREEMPTED, NumericalError, UserError
from flanjax.progress import Progress
from flanjax.report.report import write_report
from flanjax.train.interrupt import Interrupted, InterruptGuard
from flanjax.train.run_log import RunLog
from flanjax.train.rundir import RunDir
from flanjax.train.setup import Training, set_up


def run(config: RunConfig, config_text: str, progress: Progress) -> int:
    """Trains from where the run directory stands to `config.train_steps`.

    Returns:
      The exit status: 0 when done, 75 when asked to stop and saved.

    Raises:
      UserError: bad configuration, data or checkpoint, or too many non-finite steps.
        The report is written in every case.
    """
    run_dir = RunDir(config.model_dir, config.train_steps)
    with InterruptGuard() as interrupt:
        try:
            training = set_up(config, run_dir, progress, interrupt)
            run_dir.describe(config_text, training.facts)
            _train(config, training, run_dir, progress, interrupt)
            run_dir.status(state="finished", message="")
            status = 0
        except Interrupted as signal_name:
            run_dir.status(state="interrupted", message=f"stopped by {signal_name}")
            progress.line(f"stopped by {signal_name}: run the same command to go on")
            status = EXIT_PREEMPTED
        except Exception as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            run_dir.status(state="failed", message=f"{kind}{error}")
            raise
        finally:
            run_dir.status(seconds=progress.seconds)
            with progress.task("writing the report"):
                report = write_report(run_dir.path)
    progress.line(f"report: {report}")
    return status


def _train(
    config: RunConfig,
    training: Training,
    run_dir: RunDir,
    progress: Progress,
    interrupt: InterruptGuard,
) -> None:
    """Runs the remaining steps; leaves a checkpoint of the last state."""
    state, position = training.state, training.position
    log = RunLog(config, training, run_dir, progress)
    total = config.train_steps
    batches = make_loader(
        training.resolved,
        config.prepare.store_dir,
        training.layout,
        config.data.batch_size,
        config.seed,
        position=position,
        host_index=training.hosts[0],
        host_count=training.hosts[1],
        plan=training.plan,
    )

    def save(step: int, wait: bool = False) -> None:
        extra = {
            "position": [position.block, position.row],
            "plan": training.plan_facts,
            "initial_checkpoint": config.initial_checkpoint,
            "counts": log.counts(),
        }
        # Frozen parameters never change: they come from the initial weights again.
        kept = state.replace(frozen={})
        training.checkpointer.save(step, kept, extra, log.best_metrics(), wait)

    profiler = training.profiler(config.monitor, run_dir.path, progress.line)
    try:
        for step in range(training.start_step, total + 1):
            # ---- evaluate the state before update `step`
            if _due(step, config.eval_period, total, config.initial_eval):
                log.flush()
                if step not in training.evaluated:
                    label = f"evaluating at step {step}"
                    with progress.task(label), log.goodput.span("evaluation"):
                        scores = training.evaluate(state, step)
                    log.evaluation(step, scores)
            # ---- save it
            if step > training.start_step and training.checkpointer.due(step, total):
                log.flush()
                with log.goodput.span("checkpoint"):
                    save(step, wait=step == total)
            if step == total:
                break
            # ---- next batch
            batch = log.next_batch(batches)
            # ---- step
            features = training.place(batch.features)
            with log.goodput.span("profile"):
                profiler.step(step, state, features)
            with training.first_step(progress, log.goodput):
                state, metrics = training.train_step(state, features)
            position = batch.position
            # ---- log, one step behind, so that the device need not wait for the host
            log.step(step + 1, metrics, batch)
            if log.skipped_in_a_row >= config.max_skipped_steps:
                raise NumericalError(
                    f"loss or gradient not finite in {log.skipped_in_a_row} steps "
                    "in a row",
                    where=f"step {step + 1} of {run_dir.path}",
                    fix="lower the learning rate, or start again from the last "
                    "checkpoint with another seed",
                )
            interrupt.check()
    except Interrupted:
        log.flush()
        step = int(state.step)
        if step > training.start_step:
            with progress.task("saving"):
                save(step, wait=True)
        raise
    finally:
        profiler.close(state)
        batches.close()
        log.finish()
        training.checkpointer.close()


def _due(step: int, period: int, total: int, initial: bool) -> bool:
    """Evaluation is due before the first step, every `period` steps, and at the end."""
    if step == 0:
        return initial and period > 0
    return period > 0 and (step % period == 0 or step == total)
