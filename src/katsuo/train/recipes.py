"""How a model is trained: every setting, typed and documented, and the sets `paper` and `laptop` by what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from katsuo.registry import unknown_name
from katsuo.settings import Settings, build, lay_over, read_yaml


class Adapter(Settings):
    """The low-rank adapter; left alone with `method: full`."""

    rank: int = Field(default=16, ge=1)
    """Rank of the two matrices beside each weight."""
    alpha: float = Field(default=32.0, gt=0)
    """The adapter's part is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the adapter's inputs that are dropped."""
    target_modules: tuple[str, ...] = ("all-linear",)
    """Names of the layers that get an adapter; `all-linear` is every linear layer but the head."""


class Data(Settings):
    """Which examples are trained on, and which are held out."""

    examples: int | None = Field(default=None, ge=1)
    """At most this many examples; None takes what `max_steps` and `epochs` can use."""
    balance: Literal["equal_labels", "labels", "types", "none"] = "none"
    """`types` takes as many of each task type as there are, none more than its share; `labels` does the same for each
    label of a task type, too, by what it stands for: yes and true are one. Where a label is scarce, `labels` fills up
    with the others; `equal_labels` takes no label more often than the rarest of its type, and counts what it leaves."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Weight of a task type's share where types are balanced; 1 where it is not named, 0 leaves a type out."""
    checked: bool = True
    """Leave out a generator's training pairs that its task type's own checks refuse; they are counted."""
    reword: bool = False
    """Ask a run's questions in many wordings, the passage before or after them: where the question or the statement can
    be read out of a generated instruction. A small generator knows few wordings, and they tell its answers."""
    exclude_license: tuple[str, ...] = ()
    """Leave out sources by their terms: `nc` (non-commercial), `unstated`."""
    held_out: int = Field(default=256, ge=0)
    """Examples held out, with every other example of the same passages; 0 holds none out."""
    max_tokens: int = Field(default=512, ge=16)
    """Longest example, prompt and completion together; a longer one is rejected and counted, never cut."""
    max_prompt_tokens: int | None = Field(default=None, ge=8)
    """Longest prompt; None leaves it to `max_tokens`."""
    max_completion_tokens: int | None = Field(default=None, ge=8)
    """Longest completion; None leaves it to `max_tokens`."""
    min_response_words: int = Field(default=0, ge=0)
    """Leave out a run's examples whose response has fewer words; labels and options stay, and what is left out is
    counted. A target answers as long as the examples it learned from."""
    replay: str | None = None
    """General instructions to mix in: a Parquet or JSON-lines file or folder with prompts and responses."""
    replay_share: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the training examples that come from `replay`."""


class TrainRecipe(Settings):
    """Every setting of a training. The defaults are those of `laptop` for a generator."""

    method: Literal["lora", "full"] = "lora"
    """`lora` trains an adapter beside frozen weights, `full` all weights."""
    adapter: Adapter = Adapter()
    data: Data = Data()
    quantization: Literal["none", "nf4", "int8"] = "none"
    """Number format of the frozen weights; nf4 is four-bit with double quantisation (needs bitsandbytes)."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "bfloat16"
    """Number format of forward and backward; an adapter's own weights and the optimiser stay in float32."""
    style: Literal["auto", "chat", "input-output", "template"] = "auto"
    """How a target is asked: its chat template, `<|input|>`…`<|output|>`, or `prompt_template`; auto knows."""
    prompt_template: str | None = None
    """A prompt with `{instruction}` in it, for `style: template`."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Highest learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls to 0; `constant` stays."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps in which the learning rate rises from 0."""
    optimizer: Literal["adamw", "paged_adamw", "adamw_8bit"] = "adamw"
    """`paged_adamw` and `adamw_8bit` need bitsandbytes and a GPU."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """Gradients are scaled down to this norm."""
    batch_size: int = Field(default=8, ge=1)
    """Examples per update, over all processes."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Examples in one forward pass of one process: what to lower when memory runs out."""
    micro_tokens: int | None = Field(default=2048, ge=16)
    """Most tokens in one forward pass, unless one example has more: bounds memory; None passes what there is. A GPU
    with room is quicker with more. Not looked at with several processes."""
    packing: bool = True
    """Put the examples of a forward pass into one row, without attention across them and without padding."""
    gradient_checkpointing: bool = False
    """Keep fewer activations and compute them again: less memory, a third slower."""
    max_steps: int | None = Field(default=None, ge=1)
    """At most this many updates; with `epochs`, whichever ends first."""
    epochs: float = Field(default=1.0, gt=0.0)
    """At most this many passes over the examples."""
    evaluate_every: int = Field(default=50, ge=1)
    """Updates between two readings of the held-out loss."""
    patience: int | None = Field(default=4, ge=1)
    """Stop after this many readings without a lower held-out loss; None never stops early."""
    checkpoint_minutes: float = Field(default=5.0, gt=0.0)
    """Time between two checkpoints: what a killed training does again at most."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Updates between two checkpoints, beside the time."""
    log_every: int = Field(default=10, ge=1)
    """Updates between two lines of metrics."""
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Who gets the metrics beside the terminal and `metrics.jsonl`."""
    device: str = "auto"
    """auto takes a GPU where there is one, else the processor."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the draw, of the order and of the adapter's first weights."""

    @model_validator(mode="after")
    def _parts_agree(self) -> TrainRecipe:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of {self.micro_batch_size}")
        if (self.style == "template") != bool(self.prompt_template):
            raise ValueError("style template and prompt_template go together")
        if self.prompt_template and self.prompt_template.count("{instruction}") != 1:
            raise ValueError("prompt_template must hold {instruction} once")
        if self.method == "full" and self.quantization != "none":
            raise ValueError("quantised weights can only be trained with method lora")
        return self

    def override(self, changes: Mapping[str, Any]) -> TrainRecipe:
        """Give a recipe with `changes` laid over this one; dotted keys reach into groups (`adapter.rank`)."""
        return train_recipe_from(lay_over(self.model_dump(), changes))


LAPTOP = TrainRecipe()
"""For a task generator, and the default of every setting."""
PAPER = TrainRecipe(
    adapter=Adapter(rank=64, alpha=16.0),
    data=Data(checked=False, max_tokens=4096, max_prompt_tokens=2048, max_completion_tokens=2048),
    quantization="nf4",
    learning_rate=1e-4,
    optimizer="paged_adamw",
    max_grad_norm=0.3,
    batch_size=16,
    micro_batch_size=1,
    gradient_checkpointing=True,
    max_steps=100_000,
    epochs=1e6,
    evaluate_every=1000,
    patience=None,
    checkpoint_minutes=30.0,
)
"""QLoRA as the paper trains a generator (section 4 and appendix); its model card says alpha 4, its code 16."""

What = Literal["generator", "target"]
"""What is trained: a task generator, or the model that is to answer."""
RECIPES: dict[str, dict[What, TrainRecipe]] = {
    "laptop": {
        "generator": LAPTOP,
        # The best that was measured: docs/results.md, "What was tried".
        "target": LAPTOP.model_copy(
            update={"learning_rate": 5e-4, "data": LAPTOP.data.model_copy(update={"reword": True, "balance": "labels"})}
        ),
    },
    # A target takes 10,000 updates or one epoch, whichever is less.
    "paper": {"generator": PAPER, "target": PAPER.model_copy(update={"max_steps": 10_000, "epochs": 1.0})},
}


def named_recipe(name: str, what: What) -> TrainRecipe:
    """Give the recipe called `name` for what is trained, or the one in that YAML file."""
    if name in RECIPES:
        return RECIPES[name][what]
    if name.endswith((".yaml", ".yml")):
        return read_train_recipe(Path(name), what)
    raise unknown_name("recipe", name, RECIPES)


def read_train_recipe(path: Path, what: What) -> TrainRecipe:
    """Read a recipe; its settings are laid over those of `laptop`, or of the one that `recipe: paper` in it names."""
    loaded = read_yaml(path)
    base = named_recipe(str(loaded.pop("recipe", "laptop")), what)
    return train_recipe_from(lay_over(base.model_dump(), loaded), where=f' in "{path}"')


def train_recipe_from(values: Mapping[str, Any], *, where: str = "") -> TrainRecipe:
    """Build a recipe from plain values; raise `RecipeError` for the first that cannot be."""
    return build(TrainRecipe, values, where=where, listed="docs/training.md")
