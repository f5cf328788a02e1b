"""Well-known architectures, with random weights, as PyTorch modules and ONNX files, and files that packages carry.

Needs torch, torchvision, timm, transformers; the text detector and recogniser need rapidocr-onnxruntime.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "out" / "zoo"
"""Where exported models are kept."""


def _vision(name: str) -> Callable[[int], tuple[Any, tuple[Any, ...]]]:
    def make(batch: int) -> tuple[Any, tuple[Any, ...]]:
        import torch
        import torchvision

        return getattr(torchvision.models, name)(weights=None), (torch.randn(batch, 3, 224, 224),)

    return make


def _vit_tiny(batch: int) -> tuple[Any, tuple[Any, ...]]:
    import timm
    import torch

    return timm.create_model("vit_tiny_patch16_224", pretrained=False), (torch.randn(batch, 3, 224, 224),)


def _encoder(length: int, **sizes: int) -> Callable[[int], tuple[Any, tuple[Any, ...]]]:
    """A BERT of some size; its first result alone."""

    def make(batch: int) -> tuple[Any, tuple[Any, ...]]:
        import torch
        import transformers

        class First(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = transformers.BertModel(transformers.BertConfig(**sizes))

            def forward(self, ids: Any, mask: Any) -> Any:
                return self.model(ids, attention_mask=mask)[0]

        ids = torch.randint(0, 1000, (batch, length))
        return First(), (ids, torch.ones_like(ids))

    return make


def _gpt2(batch: int) -> tuple[Any, tuple[Any, ...]]:
    import torch
    import transformers

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.GPT2LMHeadModel(transformers.GPT2Config())

        def forward(self, ids: Any) -> Any:
            return self.model(ids, use_cache=False)[0]

    return First(), (torch.randint(0, 1000, (batch, 128)),)


def _lstm(batch: int) -> tuple[Any, tuple[Any, ...]]:
    import torch

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = torch.nn.LSTM(128, 256, 2, batch_first=True), torch.nn.Linear(256, 40)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0])

    return Layers(), (torch.randn(batch, 100, 128),)


_MINI = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
MODELS: dict[str, Callable[[int], tuple[Any, tuple[Any, ...]]]] = {
    "resnet18": _vision("resnet18"),
    "resnet50": _vision("resnet50"),
    "mobilenet_v2": _vision("mobilenet_v2"),
    "efficientnet_b0": _vision("efficientnet_b0"),
    "convnext_tiny": _vision("convnext_tiny"),
    "vit_tiny": _vit_tiny,
    "minilm_32": _encoder(32, **_MINI),
    "minilm_128": _encoder(128, **_MINI),
    "bert_base_128": _encoder(128),
    "gpt2_prefill_128": _gpt2,
    "lstm_100": _lstm,
}
"""batch -> (module, example inputs)."""

PACKAGED: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "ocr_detector": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", (3, 480, 640)),
    "ocr_recogniser": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", (3, 48, 320)),
}
"""Package, file in it, shape of an image: ONNX models that there is no module of."""


_DEFINED: list[Any] = []


def define_missing() -> None:
    """Operators that torchvision lacks beside a torch of another build, and that none of these models call."""
    import torch

    if _DEFINED:
        return
    _DEFINED.append(torch.library.Library("torchvision", "FRAGMENT"))
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _DEFINED[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def make(name: str, batch: int) -> tuple[Any, tuple[Any, ...]]:
    """A module in evaluation mode, its weights the same each time, running statistics random; and example inputs."""
    import torch

    define_missing()
    torch.manual_seed(0)
    module, inputs = MODELS[name](batch)
    return evaluated(module), inputs


def evaluated(module: Any) -> Any:
    """A module in evaluation mode, with random running statistics, and with random numbers for weights that begin as zeros, as those of
    some heads do: results would be zeros."""
    import torch

    with torch.no_grad():
        for p in module.parameters():
            if p.ndim > 1 and not p.any():
                p.normal_(0, 0.02)
    for m in module.modules():
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm):
            m.running_mean.normal_(0, 0.2), m.running_var.uniform_(0.5, 1.5)
    return module.eval()


def exported(name: str, batch: int) -> tuple[Path, list[np.ndarray]]:
    """The model as an ONNX file, written when it is first asked for, and its example inputs.

    Raises:
        FileNotFoundError: of a model that a package carries, which is not installed.
    """
    if name in PACKAGED:
        return _packaged(name), [np.random.default_rng(0).random((batch, *PACKAGED[name][2]), np.float32)]
    import torch

    define_missing()
    file = FOLDER / f"{name}_{batch}.onnx"
    if not file.is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        module, example = make(name, batch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, example, str(file) + ".part", dynamo=True, external_data=False, verbose=False)
        os.replace(str(file) + ".part", file)
    torch.manual_seed(0)
    return file, [x.numpy() for x in MODELS[name](batch)[1]]


def is_installed(name: str) -> bool:
    """Whether the package is there that carries a model."""
    return importlib.util.find_spec(PACKAGED[name][0]) is not None


def _packaged(name: str) -> Path:
    package, file, _ = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{name} is a file of the package {package}, which is not installed")
    return Path(spec.origin).parent / file
