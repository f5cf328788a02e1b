"""Architectures of torchvision, timm and transformers through the PyTorch importer, with random weights: how far from eager torch.

python -m benchmarks.architectures [--only vit,deit] [--threads 2]
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

import tcomp
from tcomp.cli.bench import relative_error

from . import zoo

OUT = Path(__file__).parent / "out"
TORCHVISION = [
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "densenet121",
    "vit_b_16",
    "convnext_tiny",
    "regnet_y_400mf",
    "vgg11",
]
TIMM = [
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "mobilenetv4_conv_small",
    "mixer_s32_224",
    "resmlp_12_224",
    "poolformer_s12",
    "convmixer_768_32",
    "repvgg_a0",
    "fastvit_t8",
]
TEXT = {
    "bert": "Bert", "distilbert": "DistilBert", "albert": "Albert", "gpt2": "GPT2", "llama": "Llama", "qwen2": "Qwen2", "mistral": "Mistral",
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 128, "n_layers": 2, "n_heads": 4, "hidden_dim": 256},
    "gpt2": {"n_embd": 128, "n_layer": 2, "n_head": 4},
    **{name: {"num_key_value_heads": 2} for name in ("llama", "qwen2", "mistral")},
}
"""What configurations call the sizes that others call hidden_size and so on, and what else they have."""
Make = Callable[[], tuple[Any, tuple[Any, ...]]]


def _image() -> tuple[Any, ...]:
    import torch

    return (torch.randn(1, 3, 224, 224),)


def _torchvision(name: str) -> Make:
    def make() -> tuple[Any, tuple[Any, ...]]:
        import torchvision

        return getattr(torchvision.models, name)(weights=None), _image()

    return make


def _timm(name: str) -> Make:
    def make() -> tuple[Any, tuple[Any, ...]]:
        import timm

        return timm.create_model(name, pretrained=False), _image()

    return make


def _segmentation() -> tuple[Any, tuple[Any, ...]]:
    import torch
    import torchvision

    class Out(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            make = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large
            self.model = make(weights=None, weights_backbone=None)

        def forward(self, x: Any) -> Any:
            return self.model(x)["out"]

    return Out(), _image()


def _first_result(module: Any) -> Any:
    import torch

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(self, x: Any) -> Any:
            return self.model(x, return_dict=False)[0]

    return First()


def _text(name: str, kind: str) -> Make:
    def make() -> tuple[Any, tuple[Any, ...]]:
        import torch
        import transformers

        usual = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
        own = SMALL.get(name, {})
        sizes = own if "n_layers" in own or "n_layer" in own else {**usual, **own}
        config = getattr(transformers, f"{kind}Config")(vocab_size=1000, **sizes)
        return _first_result(getattr(transformers, f"{kind}Model")(config)), (torch.randint(0, 1000, (2, 24)),)

    return make


def _features(kind: str, model: str, shape: tuple[int, ...], **sizes: Any) -> Make:
    def make() -> tuple[Any, tuple[Any, ...]]:
        import torch
        import transformers

        config = getattr(transformers, f"{kind}Config")(**sizes)
        module = getattr(transformers, model)(config)
        return _first_result(module.encoder if kind == "Whisper" else module), (torch.randn(*shape),)

    return make


def architectures() -> dict[str, Make]:
    """By name: what makes the module and example inputs."""
    audio = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    whisper = {
        "d_model": 64,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "decoder_layers": 1,
        "decoder_attention_heads": 4,
    }
    return {
        **{f"torchvision {n}": _torchvision(n) for n in TORCHVISION},
        "torchvision deeplabv3_mobilenet": _segmentation,
        **{f"timm {n}": _timm(n) for n in TIMM},
        **{f"transformers {n}": _text(n, kind) for n, kind in TEXT.items()},
        "transformers vit": _features("ViT", "ViTModel", (1, 3, 224, 224), num_hidden_layers=2),
        "transformers resnet": _features("ResNet", "ResNetModel", (1, 3, 224, 224)),
        "transformers whisper encoder": _features("Whisper", "WhisperModel", (1, 80, 3000), **whisper),
        "transformers wav2vec2": _features("Wav2Vec2", "Wav2Vec2Model", (1, 16000), **audio),
    }


def main(only: str = typer.Option("", help="parts of names, separated by commas"), threads: int = 2) -> None:
    """Print a table of relative errors; write it as JSON to benchmarks/out."""
    import torch

    zoo.define_missing()
    parts = [p for p in only.split(",") if p]
    table, rows = Table("architecture", "differs from eager", "compiles in s"), []
    for name, make in architectures().items():
        if parts and not any(p in name for p in parts):
            continue
        torch.manual_seed(0)
        try:
            module, inputs = make()
            zoo.evaluated(module)
            with torch.inference_mode():
                want = module(*inputs).numpy()
            start = time.perf_counter()
            exe = tcomp.compile(module, list(inputs), num_threads=threads)
            seconds = time.perf_counter() - start
            got = exe(*(x.numpy() for x in inputs))
            error = relative_error(got[0] if isinstance(got, tuple) else got, want)
            rows.append({"name": name, "differs": error, "seconds": seconds})
            table.add_row(name, f"{error:.1e}", f"{seconds:.1f}")
        except Exception as error:  # the others are still of interest
            traceback.print_exc()
            rows.append({"name": name, "failed": f"{type(error).__name__}: {error}"})
            table.add_row(name, f"{type(error).__name__}: {str(error).splitlines()[0]}"[:70], "")
    console = Console(width=130, markup=False)
    console.print(table)
    worst = max((r["differs"] for r in rows if "differs" in r), default=0.0)
    console.print(f"{len(rows)} architectures, {sum('failed' in r for r in rows)} failed, worst {worst:.1e}")
    OUT.mkdir(exist_ok=True)
    (OUT / "architectures.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
