"""LoRA (Hu et al. 2022, arXiv:2106.09685) trained on the edits themselves, through the peft library.

Low-rank adapters beside every layer's attention projections, or whatever modules are named; the model's own weights are
never written to, so taking the adapters out restores it exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memedit.errors import MissingExtra
from memedit.parametric.edits import Applied, WeightEdit, check
from memedit.parametric.finetune import batch, descend
from memedit.parametric.layers import LayerMap

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Lora:
    """Low-rank adaptation. All edits are one batch: a step follows the mean over all of them.

    Args:
        rank: Rank of the adapters.
        scale: The adapters' alpha.
        modules: Last parts of the names of the modules to adapt; by default the query and value projections, or
            GPT-2's one projection of all three.
        steps: Most steps of Adam.
        rate: Its learning rate.
        enough: Training ends early where the loss is below this.
        seed: For the adapters' first weights.
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
    ) -> None:
        self.rank = rank
        self.scale = scale
        self.modules = modules
        self.steps = steps
        self.rate = rate
        self.enough = enough
        self.seed = seed

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
        tokens, labels = batch(tokenizer, edits)
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
            self._train(model, tokens.to(model.device), labels.to(model.device))
        except BaseException:
            applied.revert()
            raise
        return applied

    def _train(self, model: PreTrainedModel, tokens: torch.Tensor, labels: torch.Tensor) -> None:
        import torch

        module: torch.nn.Module = model
        module.eval()
        adapters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam(adapters, lr=self.rate)
        for _ in range(self.steps):
            if descend(model, tokens, labels) < self.enough:
                break
            adam.step()
            adam.zero_grad()
        for parameter in adapters:
            parameter.requires_grad_(False)
            parameter.grad = None
