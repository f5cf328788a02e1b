"""Builds the page: trains the digits CNN, compiles it to WebAssembly, and puts it beside index.html.

python tutorials/web/build.py FOLDER [--epochs 40]; then python -m http.server -d FOLDER, and open it in a browser.
"""

import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import frontend as ndl
import tcomp
from frontend import nn, optim, train
from frontend.data import DataLoader, DigitsDataset, RandomAffine
from frontend.models import digits_cnn
from tcomp.export.wasm import TARGET

HERE = Path(__file__).parent


def trained(epochs: int) -> nn.Module:
    """The network, in evaluation mode; it has seen digits turned, stretched and shifted, as people draw them."""
    ndl.init.seed(0)
    np.random.seed(0)  # of the transforms
    model = digits_cnn(24)
    loader = DataLoader(
        DigitsDataset(train=True, transforms=[RandomAffine(12, 0.15, 0.8)]), 64, shuffle=True, drop_last=True, seed=0
    )
    optimizer = optim.AdamW(model.parameters(), 6e-3, weight_decay=0.1)
    step = train.compile_step(model, nn.SoftmaxLoss(), optimizer, next(loader.batches(0)))
    train.fit(step, loader, epochs, lr_scheduler=optim.cosine(epochs * len(loader), len(loader)))
    return model.eval()


def main(folder: Path, epochs: Annotated[int, typer.Option(help="passes over the digits")] = 40) -> None:
    """Build the page into a folder."""
    model = trained(epochs)
    test = DigitsDataset(train=False)
    images, labels = (np.stack(x) for x in zip(*(test[i] for i in range(len(test)))))
    scores = tcomp.compile(model, [images.astype(np.float32)])(images.astype(np.float32))
    print(f"{np.mean(scores.argmax(1) == labels):.1%} of {len(labels)} digits recognised")
    exe = tcomp.compile(model, [np.zeros((1, 1, 8, 8), np.float32)], target=TARGET, winograd=False)
    folder.mkdir(parents=True, exist_ok=True)
    written = exe.export(folder / "digits.wasm", format="wasm")
    for name in ("index.html", "draw.mjs"):
        shutil.copy(HERE / name, folder / name)
    for f in (*written, folder / "index.html", folder / "draw.mjs"):
        print(f"{f}  {f.stat().st_size:,} bytes")
    print(f"to see it: python -m http.server -d {folder}")


if __name__ == "__main__":
    typer.run(main)
