"""T0-SF: the 193 prompts of P3 that FLAN 2022 keeps, as SeqIO tasks.

    seqio.get_mixture_or_task("t0_sciq_Multiple_Choice_zs_opt")

A task is a prompt, not a dataset: 193 prompts over 26 configurations of datasets, 104
that ask an open question, 70 that name choices and 19 to which they are added (Chung et
al. 2022, https://arxiv.org/abs/2210.11416, "T0-SF"). Which prompts, their kinds and
sizes are in `tables/t0_sf.tsv`; `mixtures.t0_sf_source` says where rows come from.
Every question, P3's or ours, stands in one of ten wrappers of its kind.
"""

from pathlib import Path

from flanjax.data.fewshot import FewShot
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import PROMPT_TYPES, TemplateFile
from mixtures.t0_sf_source import RAW, Prompt, T0Source, load_prompts

_WRAPPERS = TemplateFile(Path(__file__).parent / "templates/t0_sf.toml")

PROMPTS: dict[str, Prompt] = load_prompts()
SOURCES: dict[str, T0Source] = {
    f"t0_{name}": T0Source(prompt) for name, prompt in PROMPTS.items()
}


def _add(base: str, prompt: Prompt) -> tuple[str, ...]:
    """Registers a prompt; returns the names of its tasks."""
    info = TaskInfo(
        "t0_sf",
        prompt.dataset,
        prompt.category,
        licence=RAW[prompt.dataset].licence,
    )
    return add_instruction_task(
        base,
        SOURCES[base],
        _WRAPPERS[prompt.kind],
        info,
        has_options=prompt.has_options,
        # Without choices to show, the two forms of a pair read the same; the public
        # mixtures hold both.
        prompt_types=PROMPT_TYPES,
        mix_shots=FewShot(shots=5),
        option_style="random",
    )


# Base name -> names of its tasks.
BASES: dict[str, tuple[str, ...]] = {
    f"t0_{name}": _add(f"t0_{name}", prompt) for name, prompt in PROMPTS.items()
}
