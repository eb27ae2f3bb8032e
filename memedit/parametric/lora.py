"""LoRA (Hu et al. 2022, arXiv:2106.09685) trained on the edits themselves, through the peft library.

Low-rank adapters beside every layer's attention projections, or whatever modules are named; the model's own weights are
never written to, so taking the adapters out restores it exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memedit.errors import MissingExtra
from memedit.parametric.edits import Applied, WeightEdit, check
from memedit.parametric.epochs import Batch, batches, train
from memedit.parametric.layers import LayerMap

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Lora:
    """Low-rank adaptation, trained in epochs and batches like `memedit.parametric.finetune.FineTuning`.

    Args:
        rank: Rank of the adapters.
        scale: The adapters' alpha.
        modules: Last parts of the names of the modules to adapt; by default the query and value projections, or
            GPT-2's one projection of all three.
        steps: Most epochs, each with a step of Adam for every batch; with no more edits than a batch, most steps in all.
        rate: Adam's learning rate.
        enough: A batch whose loss is below this is passed over; training ends early where the mean over an epoch is.
        seed: For the adapters' first weights.
        batch_size: Most edits of a batch; as many as in fine-tuning.
    """

    name = "lora"

    def __init__(
        self,
        *,
        rank: int = 8,
        scale: int = 32,
        modules: Sequence[str] | None = None,
        steps: int = 70,
        rate: float = 5e-3,
        enough: float = 0.01,
        seed: int = 0,
        batch_size: int = 128,
    ) -> None:
        self.rank = rank
        self.scale = scale
        self.modules = modules
        self.steps = steps
        self.rate = rate
        self.enough = enough
        self.seed = seed
        self.batch_size = batch_size

    def prepare(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Nothing is needed but layers that are known. See `memedit.parametric.edits.Editing.prepare`."""
        LayerMap(model)

    def apply(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, edits: Sequence[WeightEdit]) -> Applied:
        """See `memedit.parametric.edits.Editing.apply`.

        Raises:
            MissingExtra: peft is not installed.
        """
        import torch

        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise MissingExtra("peft", "rome") from error
        names = LayerMap(model)
        check(edits)
        transposed = names.is_transposed
        modules = self.modules or (["c_attn"] if transposed else ["q_proj", "v_proj"])
        parts = batches(tokenizer, edits, self.batch_size)
        was_training = model.training
        wanted = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            adapted: PeftModel = get_peft_model(
                model,
                LoraConfig(
                    task_type="CAUSAL_LM",
                    r=self.rank,
                    lora_alpha=self.scale,
                    target_modules=list(modules),
                    fan_in_fan_out=transposed,
                ),
            )

        def remove() -> None:
            adapted.unload()
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in wanted)
            model.train(was_training)

        applied = Applied(remove)
        try:
            self._train(model, parts)
        except BaseException:
            applied.revert()
            raise
        return applied

    def _train(self, model: PreTrainedModel, parts: Sequence[Batch]) -> None:
        import torch

        module: torch.nn.Module = model
        module.eval()
        adapters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        train(model, parts, torch.optim.Adam(adapters, lr=self.rate), self.steps, self.enough)
        for parameter in adapters:
            parameter.requires_grad_(False)
            parameter.grad = None
