"""`flanjax quickstart`: fetch, prepare, evaluate, fine-tune, evaluate, export, report.

Nothing here that the single commands do not do: it runs the recipe
`gin/recipes/smollm2_starter.gin` (with --tiny `gin/recipes/tiny.gin`), exports the
result and prints the scores before and after.
"""

import time
from pathlib import Path

from rich.console import Console

from flanjax.progress import Progress

RECIPE, TINY_RECIPE = "gin/recipes/smollm2_starter.gin", "gin/recipes/tiny.gin"
FETCHED = ("starter", "smollm2")


def quickstart(tiny: bool, model_dir: str | None, progress: Progress) -> int:
    """Runs it; run it again after an interruption and it goes on.

    Args:
      tiny: the smoke run, which downloads nothing.
      model_dir: run directory; runs/quickstart or runs/quickstart_tiny by default.
      progress: where lines go.

    Returns:
      The exit status of the training run.
    """
    start = time.monotonic()
    model_dir = model_dir or ("runs/quickstart_tiny" if tiny else "runs/quickstart")
    if not tiny:
        from flanjax.data.fetch import fetch

        for name in FETCHED:
            with progress.task(f"fetching {name}", announce=False):
                fetch(name, progress.line)
    with progress.task("starting", announce=False):
        from flanjax.config import load_config
        from flanjax.convert.run_export import export_run
        from flanjax.report.console import print_summary
        from flanjax.report.report import write_report
        from flanjax.train.loop import run

    recipe = TINY_RECIPE if tiny else RECIPE
    config, text = load_config([recipe], [f"MODEL_DIR={model_dir}"])
    status = run(config, text, progress)
    if status:
        return status
    run_dir = Path(model_dir)
    with progress.task("exporting to Hugging Face format"):
        export_run(config, run_dir / "export")
    report = write_report(run_dir)
    print_summary(run_dir, Console())
    minutes, seconds = divmod(int(time.monotonic() - start), 60)
    progress.line(f"model:  {run_dir / 'export'}  (Hugging Face format)")
    progress.line(f"report: {report}  ({minutes} min {seconds} s in all)")
    return 0
