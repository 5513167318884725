"""What the Flan-PaLM paper ran: its ten models, with their FLOPs as it counts them.

    paper_flops(11e9, tokens=14_000 * 64 * 2560, encoder_decoder=True)   # 7.57e19

Tables 2 and 22 of https://arxiv.org/abs/2210.11416. The convention below is ours, found
by arithmetic: the paper prints two digits and names no formula. It gives every figure
within 2 % but two, both of Flan-U-PaLM: its fine-tuning figure is that of Flan-PaLM's
21k steps (its 30k give 8.0e21, 42 % more), and its pre-training figure a tenth of that
of the PaLM it goes on from. (The paper's text gives Flan-PaLM 540B 1.4 B tokens: its
rows' inputs alone; with their targets they are 1.7 B.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Inputs and targets of a packed row: 2,048 + 512, as in FLAN's public code.
ROW = 2560


def paper_flops(parameters: float, tokens: float, *, encoder_decoder: bool) -> float:
    """Training operations as the Flan-PaLM paper's Table 2 counts them.

    Each token passes all parameters of a decoder, and half of an encoder-decoder's:
    6 or 3 operations for each parameter and token, attention left out.

    Args:
      parameters: by the model's name: 60M, 220M, 770M, 3B, 11B for T5; 8B, 62B, 540B.
      tokens: positions of all rows.
      encoder_decoder: T5, or a decoder alone.
    """
    return (3.0 if encoder_decoder else 6.0) * parameters * tokens


@dataclass(frozen=True)
class PaperRun:
    """A row of Table 2 and Table 22 of https://arxiv.org/abs/2210.11416.

    Attributes:
      recipe: the gin file of it in gin/recipes.
      parameters: by its name.
      encoder_decoder: T5 or PaLM.
      batch: packed rows of a step.
      steps: of fine-tuning.
      pretrain_tokens: nominal.
      pretrain_printed: operations of pre-training that the paper prints.
      finetune_printed: and of fine-tuning.
    """

    recipe: str
    parameters: float
    encoder_decoder: bool
    batch: int
    steps: int
    pretrain_tokens: float
    pretrain_printed: float
    finetune_printed: float

    @property
    def finetune_flops(self) -> float:
        """By the paper's convention, with rows of `ROW` tokens."""
        tokens = self.steps * self.batch * ROW
        kind = self.encoder_decoder
        return paper_flops(self.parameters, tokens, encoder_decoder=kind)

    @property
    def pretrain_flops(self) -> float:
        """By the paper's convention."""
        tokens, kind = self.pretrain_tokens, self.encoder_decoder
        return paper_flops(self.parameters, tokens, encoder_decoder=kind)


PAPER_RUNS: Sequence[PaperRun] = (
    PaperRun("flan_t5_small", 60e6, True, 64, 98_000, 1e12, 1.8e20, 2.9e18),
    PaperRun("flan_t5_base", 220e6, True, 64, 84_000, 1e12, 6.6e20, 9.1e18),
    PaperRun("flan_t5_large", 770e6, True, 64, 64_000, 1e12, 2.3e21, 2.4e19),
    PaperRun("flan_t5_xl", 3e9, True, 64, 38_000, 1e12, 9.0e21, 5.6e19),
    PaperRun("flan_t5_xxl", 11e9, True, 64, 14_000, 1e12, 3.3e22, 7.6e19),
    PaperRun("flan_palm_8b", 8e9, False, 32, 40_000, 780e9, 3.7e22, 1.6e20),
    PaperRun("flan_palm_62b", 62e9, False, 32, 40_000, 780e9, 2.9e23, 1.2e21),
    PaperRun("flan_palm_540b", 540e9, False, 32, 21_000, 780e9, 2.5e24, 5.6e21),
    PaperRun("flan_cont_palm_62b", 62e9, False, 32, 60_000, 1.3e12, 4.8e23, 1.8e21),
    PaperRun("flan_u_palm_540b", 540e9, False, 32, 30_000, 780e9, 2.5e23, 5.6e21),
)


def paper_notes(gin_files: Iterable[str]) -> list[str]:
    """Says of the paper's recipes among `gin_files` what the paper counts for them."""
    names = {Path(file).stem for file in gin_files}
    return [
        f"{run.recipe} by the Flan-PaLM paper's count: {run.finetune_flops:.2e} "
        f"operations (it prints {run.finetune_printed:.1e}), pre-training "
        f"{run.pretrain_flops:.2e} (it prints {run.pretrain_printed:.1e})"
        for run in PAPER_RUNS
        if run.recipe in names
    ]
