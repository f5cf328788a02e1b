"""Classical models (ai.onnx.ml): trees, linear models, support vectors, and what prepares their inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.graph import Operand
from ..calls import cut
from .node import Node
from .table import ML, converts


def _floats(c: Node, x: Operand) -> Operand:
    return x if x.type.dtype.is_float else c.cast(x, "float32")


@converts("Scaler", domain=ML)
def scaler(c: Node) -> Operand:
    x = _floats(c, c[0])
    moved = c.g.op("subtract", x, c.constant(np.array(c.attr("offset", [0.0])), x))
    return c.g.op("multiply", moved, c.constant(np.array(c.attr("scale", [1.0])), x))


@converts("Normalizer", domain=ML)
def normalizer(c: Node) -> Operand:
    x, kind = _floats(c, c[0]), c.attr("norm", "MAX")
    how = {"axes": (x.type.ndim - 1,), "keepdims": True}
    if kind == "MAX":
        size = c.g.op("max", c.g.op("abs", x), **how)
    else:
        size = c.g.op("norm", x, order=1 if kind == "L1" else 2, **how)
    zero = c.constant(0, size)
    return c.g.op("divide", x, c.g.op("where", c.g.op("equal", size, zero), c.constant(1, size), size))


@converts("Binarizer", domain=ML)
def binarizer(c: Node) -> Operand:
    x = c[0]
    return c.cast(c.g.op("greater", x, c.constant(c.attr("threshold", 0.0), x)), x.type.dtype)


@converts("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(c: Node) -> Operand:
    x = c[0] if c.type_of(0).ndim > 1 else c.reshape(c[0], (1, *c.shape(0)))
    places = c.reshape(c[1], (c.type_of(1).size,))
    return c.g.op("take", x, places, axis=x.type.ndim - 1)


@converts("Imputer", domain=ML)
def imputer(c: Node) -> Operand:
    x = c[0]
    if x.type.dtype.is_float:
        values, missing = c.attr("imputed_value_floats", [0.0]), c.attr("replaced_value_float", 0.0)
        lost = c.g.op("isnan", x) if np.isnan(missing) else c.g.op("equal", x, c.constant(missing, x))
    else:
        values, missing = c.attr("imputed_value_int64s", [0]), c.attr("replaced_value_int64", 0)
        lost = c.g.op("equal", x, c.constant(missing, x))
    return c.g.op("where", lost, c.constant(np.array(values), x), x)


@converts("FeatureVectorizer", domain=ML)
def feature_vectorizer(c: Node) -> Operand:
    c.attr("inputdimensions", [])
    parts = [_floats(c, x) for x in c.all()]
    return c.g.op("concat", *parts, axis=1) if len(parts) > 1 else parts[0]


@converts("LabelEncoder", domain=ML)
def label_encoder(c: Node) -> Operand:
    """Numbers to numbers, by a comparison with each key."""

    def values(kind: str) -> Any:
        for suffix in ("tensor", "int64s", "floats", "strings"):
            if f"{kind}_{suffix}" in c.attrs:
                found = c.attrs[f"{kind}_{suffix}"]
                if suffix == "strings":
                    raise c.refuse("it maps texts")
                return np.asarray(found, {"int64s": np.int64, "floats": np.float32}.get(suffix)).reshape(-1)
        raise c.refuse(f"it has no {kind}")

    keys, found = values("keys"), values("values")
    default: Any = c.attr("default_tensor")
    if default is None:
        default = c.attr("default_int64", -1) if found.dtype.kind == "i" else c.attr("default_float", -0.0)
    x = c[0]
    result: Operand = c.g.op(
        "broadcast_to", c.constant(np.asarray(default, found.dtype).reshape(())), shape=x.type.shape
    )
    for key, value in reversed(list(zip(keys, found))):
        is_nan = isinstance(key, np.floating) and np.isnan(key)
        hit = c.g.op("isnan", x) if is_nan else c.g.op("equal", x, c.constant(key, x))
        result = c.g.op("where", hit, c.constant(np.asarray(value, found.dtype)), result)
    return result


@converts("ZipMap", domain=ML)
def zip_map(c: Node) -> Operand:
    """The matrix of scores itself: its columns are the labels in their order."""
    c.attr("classlabels_int64s", []), c.attr("classlabels_strings", [])
    return c[0]


@converts("Cast", domain=ML)
def nothing(c: Node) -> Operand:
    return c[0]


# scores to labels


def post_transformed(c: Node, scores: Operand, how: str) -> Operand:
    """Scores of classes as the node asks for them."""
    g = c.g
    match how:
        case "NONE":
            return scores
        case "SOFTMAX":
            return g.op("softmax", scores, axis=1)
        case "LOGISTIC":
            return g.op("sigmoid", scores)
        case "SOFTMAX_ZERO":
            zero = c.constant(0, scores)
            is_zero = g.op("equal", scores, zero)
            e = g.op("where", is_zero, zero, g.op("exp", scores))
            return g.op("divide", e, g.op("sum", e, axes=(1,), keepdims=True))
    raise c.refuse(f"post_transform {how!r} is not read")


def _labels(c: Node) -> Any:
    """The classes' numbers."""
    for name in ("classlabels_int64s", "classlabels_ints"):
        if c.attr(name):
            return np.array(c.attrs[name], np.int64)
    texts = c.attr("classlabels_strings") or c.attr("classlabels_strings")
    if texts:
        raise c.refuse("its labels are texts", "export the classifier with integer labels")
    return None


def _chosen(c: Node, scores: Operand, labels: Any) -> Operand:
    best: Operand = c.g.op("argmax", scores, axis=1)
    if labels is None or (labels == np.arange(len(labels))).all():
        return best
    return c.g.op("take", c.constant(labels), best, axis=0)


@converts("LinearRegressor", domain=ML)
def linear_regressor(c: Node) -> Operand:
    x, targets = _floats(c, c[0]), c.attr("targets", 1)
    y = _affine(c, x, targets)
    return post_transformed(c, y, c.attr("post_transform", "NONE"))


def _affine(c: Node, x: Operand, rows: int) -> Operand:
    weights = np.array(c.attr("coefficients", [])).reshape(rows, -1)
    y = c.g.op("matmul", x, c.constant(np.ascontiguousarray(weights.T), x))
    shift = c.attr("intercepts", [])
    return c.g.op("add", y, c.constant(np.array(shift), x)) if shift else y


@converts("LinearClassifier", domain=ML)
def linear_classifier(c: Node) -> tuple[Operand, Operand]:
    x, labels = _floats(c, c[0]), _labels(c)
    c.attr("multi_class", 0)
    rows = len(c.attr("intercepts", [])) or (len(labels) if labels is not None else 1)
    scores = _affine(c, x, rows)
    how = c.attr("post_transform", "NONE")
    if rows == 1 and labels is not None and len(labels) == 2:
        return _of_two(c, scores, labels, how)
    return _chosen(c, scores, labels), post_transformed(c, scores, how)


def _of_two(c: Node, score: Operand, labels: Any, how: str) -> tuple[Operand, Operand]:
    """One score for two classes: of the second; the first has what is left."""
    p = post_transformed(c, score, "LOGISTIC" if how == "LOGISTIC" else "NONE")
    other = c.g.op("negative", p)
    limit = 0.0
    if how == "LOGISTIC":
        other, limit = c.g.op("add_scalar", other, scalar=1.0), 0.5
    both = c.g.op("concat", other, p, axis=1)
    second = c.cast(c.g.op("greater", c.reshape(p, (p.type.shape[0],)), c.constant(limit, p)), "int64")
    if how in ("SOFTMAX", "SOFTMAX_ZERO"):
        both = post_transformed(c, both, how)
    return c.g.op("take", c.constant(labels), second, axis=0), both


# trees


@dataclass
class _Forest:
    """All nodes of all trees in one row; leaves lead to themselves.

    Attributes:
        roots: places of the trees' first nodes; depth: the longest way from one to a leaf.
        feature, threshold, mode, yes, no, missing: of each node.
        weights: (nodes, targets), zeros but at leaves.
    """

    roots: np.ndarray
    depth: int
    feature: np.ndarray
    threshold: np.ndarray
    mode: list[str]
    yes: np.ndarray
    no: np.ndarray
    missing: np.ndarray
    weights: np.ndarray


_COMPARE = {
    "BRANCH_LEQ": "less_equal", "BRANCH_LT": "less", "BRANCH_GTE": "greater_equal", "BRANCH_GT": "greater",
    "BRANCH_EQ": "equal", "BRANCH_NEQ": "not_equal",
}  # fmt: skip
_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")


def _depth(roots: np.ndarray, yes: np.ndarray, no: np.ndarray) -> int:
    """The longest way from a root to a leaf.

    Raises:
        ValueError: a way never ends.
    """
    level, depth = np.unique(roots), 0
    while True:
        inner = level[yes[level] != level]
        if not len(inner):
            return depth
        depth += 1
        if depth > len(yes):
            raise ValueError("a tree's way from node to node never ends")
        level = np.unique(np.concatenate([yes[inner], no[inner]]))


def _walk(c: Node, x: Operand, f: _Forest) -> Operand:
    """(rows, trees): the place of the leaf that each row comes to."""
    g, count = c.g, len(f.roots)
    rows = x.type.shape[0]
    tables = [c.constant(t) for t in (f.feature.astype(np.int64), f.yes, f.no)]
    feature, yes, no = tables
    threshold = c.constant(f.threshold.astype(x.type.dtype.numpy))
    modes = sorted({m for i, m in enumerate(f.mode) if f.yes[i] != i})
    kinds = c.constant(np.array([modes.index(m) if m in modes else 0 for m in f.mode], np.int64))
    tracks = c.constant(f.missing) if f.missing.any() else None
    at = g.op("broadcast_to", c.constant(f.roots.astype(np.int64)), shape=(rows, count))
    for _ in range(f.depth):
        value = _picked(c, x, g.op("take", feature, at, axis=0))
        limit = g.op("take", threshold, at, axis=0)
        hit: Any = None
        for i, mode in enumerate(modes):
            part = g.op(_COMPARE[mode], value, limit)
            if len(modes) > 1:
                part = g.op(
                    "logical_and", part, g.op("equal", g.op("take", kinds, at, axis=0), c.constant(np.asarray(i)))
                )
            hit = part if hit is None else g.op("logical_or", hit, part)
        if tracks is not None:
            lost = g.op("logical_and", g.op("isnan", value), g.op("take", tracks, at, axis=0))
            hit = g.op("logical_or", hit, lost)
        at = g.op("where", hit, g.op("take", yes, at, axis=0), g.op("take", no, at, axis=0))
    return at


def _picked(c: Node, x: Operand, feature: Operand) -> Operand:
    """x[row, feature[row, tree]]."""
    index = c.reshape(feature, (*feature.type.shape, 1))
    return c.g.op("gather_nd", x, index, batch=1)


def _aggregated(c: Node, leaves: Operand, f: _Forest, how: str, d: Any) -> Operand:
    """(rows, targets): the leaves' weights of all trees."""
    each = c.g.op("take", c.constant(f.weights.astype(d.numpy)), leaves, axis=0)
    if how in ("SUM", "AVERAGE"):
        total: Operand = c.g.op("sum", each, axes=(1,))
        return total if how == "SUM" else c.g.op("multiply_scalar", total, scalar=1 / len(f.roots))
    return c.g.op("max" if how == "MAX" else "min", each, axes=(1,))


def _old_forest(c: Node, kind: str, targets: int) -> _Forest:
    """From the attributes of TreeEnsembleClassifier and -Regressor."""
    trees, ids = np.array(c.ints("nodes_treeids")), np.array(c.ints("nodes_nodeids"))
    place = {(int(t), int(n)): i for i, (t, n) in enumerate(zip(trees, ids))}
    count = len(ids)
    modes = list(c.attr("nodes_modes", []))
    yes, no = np.arange(count), np.arange(count)
    for i, (mode, a, b) in enumerate(zip(modes, c.ints("nodes_truenodeids") or [], c.ints("nodes_falsenodeids") or [])):
        if mode != "LEAF":
            yes[i], no[i] = place[int(trees[i]), a], place[int(trees[i]), b]
    values = c.attr("nodes_values", []) or c.attr("nodes_values_as_tensor", np.zeros(count))
    weights = np.zeros((count, targets))
    given: Any = c.attr(f"{kind}_weights", []) or c.attr(f"{kind}_weights_as_tensor", np.zeros(0))
    for t, n, to, w in zip(*(c.ints(f"{kind}_{k}") or [] for k in ("treeids", "nodeids", "ids")), given):
        weights[place[t, n], to] += w
    has_parent = np.zeros(count, bool)
    inner = yes != np.arange(count)
    has_parent[yes[inner]] = has_parent[no[inner]] = True
    roots = np.array([i for i in range(count) if not has_parent[i]])
    missing = np.array(c.ints("nodes_missing_value_tracks_true") or [0] * count, bool)
    c.attr("nodes_hitrates", []), c.attr("nodes_hitrates_as_tensor")
    features = np.array(c.ints("nodes_featureids"))
    return _Forest(roots, _depth(roots, yes, no), features, np.asarray(values, float), modes, yes, no, missing, weights)


def _shifted(c: Node, scores: Operand) -> Operand:
    base: Any = c.attr("base_values", []) or c.attr("base_values_as_tensor", np.zeros(0))
    return c.g.op("add", scores, c.constant(np.asarray(base), scores)) if len(base) else scores


@converts("TreeEnsembleRegressor", domain=ML)
def tree_ensemble_regressor(c: Node) -> Operand:
    x = _floats(c, c[0])
    f = _old_forest(c, "target", c.attr("n_targets", 1))
    y = _aggregated(c, _walk(c, x, f), f, c.attr("aggregate_function", "SUM"), x.type.dtype)
    return c.cast(post_transformed(c, _shifted(c, y), c.attr("post_transform", "NONE")), "float32")


@converts("TreeEnsembleClassifier", domain=ML)
def tree_ensemble_classifier(c: Node) -> tuple[Operand, Operand]:
    x, labels = _floats(c, c[0]), _labels(c)
    count, how = len(labels), c.attr("post_transform", "NONE")
    ids = sorted(set(c.ints("class_ids") or []))
    f = _old_forest(c, "class", count)
    scores = _shifted_classes(c, _aggregated(c, _walk(c, x, f), f, "SUM", x.type.dtype), count, len(ids))
    if len(ids) == 1 and count == 2:
        given: Any = c.attr("class_weights", []) or c.attr("class_weights_as_tensor", np.zeros(0))
        score = cut(c, scores, [ids[0]], [ids[0] + 1], [1])
        return _binary(c, score, labels, how, bool((np.asarray(given) >= 0).all()))
    return _chosen(c, scores, labels), c.cast(post_transformed(c, scores, how), "float32")


def _shifted_classes(c: Node, scores: Operand, count: int, used: int) -> Operand:
    base: Any = c.attr("base_values", []) or c.attr("base_values_as_tensor", np.zeros(0))
    if not len(base):
        return scores
    values = np.asarray(base, float)
    if len(values) == 1 and used == 1:
        values = np.repeat(values, count)
    return c.g.op("add", scores, c.constant(values, scores))


def _binary(c: Node, score: Operand, labels: Any, how: str, is_probability: bool) -> tuple[Operand, Operand]:
    """Trees that score one of two classes: a probability where no weight is negative, else a number around zero."""
    g, rows = c.g, score.type.shape[0]
    limit = 0.5 if is_probability else 0.0
    second = c.cast(g.op("greater", c.reshape(score, (rows,)), c.constant(limit, score)), "int64")
    if how == "NONE" and is_probability:
        both = g.op("concat", g.op("add_scalar", g.op("negative", score), scalar=1.0), score, axis=1)
    else:
        both = post_transformed(c, g.op("concat", g.op("negative", score), score, axis=1), how)
    return g.op("take", c.constant(labels), second, axis=0), c.cast(both, "float32")


@converts("TreeEnsemble", domain=ML)
def tree_ensemble(c: Node) -> Operand:
    x, targets = _floats(c, c[0]), c.attr("n_targets", 1)
    yes_leaf, no_leaf = (np.array(c.ints(f"nodes_{k}leafs"), bool) for k in ("true", "false"))
    count = len(yes_leaf)
    ids, weights = np.array(c.ints("leaf_targetids")), np.asarray(c.attrs["leaf_weights"]).reshape(-1)
    whole = np.zeros((count + len(ids), targets))
    whole[count + np.arange(len(ids)), ids] = weights
    yes = np.concatenate([np.array(c.ints("nodes_truenodeids")) + count * yes_leaf, count + np.arange(len(ids))])
    no = np.concatenate([np.array(c.ints("nodes_falsenodeids")) + count * no_leaf, count + np.arange(len(ids))])
    modes = [_MODES[int(m)] for m in np.asarray(c.attrs["nodes_modes"]).reshape(-1)]
    splits = np.asarray(c.attrs["nodes_splits"], float).reshape(-1)
    features, roots = np.array(c.ints("nodes_featureids")), np.array(c.ints("tree_roots"))
    missing = np.array(c.ints("nodes_missing_value_tracks_true") or [0] * count, bool)
    c.attr("nodes_hitrates")
    if "BRANCH_MEMBER" in modes:
        raise c.refuse("membership tests are not read")
    more = len(ids)
    f = _Forest(
        roots, _depth(roots, yes, no), np.concatenate([features, np.zeros(more, int)]),
        np.concatenate([splits, np.zeros(more)]), modes + ["LEAF"] * more, yes, no,
        np.concatenate([missing, np.zeros(more, bool)]), whole,
    )  # fmt: skip
    how = ("AVERAGE", "SUM", "MIN", "MAX")[c.attr("aggregate_function", 1)]
    transforms = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
    y = _aggregated(c, _walk(c, x, f), f, how, x.type.dtype)
    return post_transformed(c, y, transforms[c.attr("post_transform", 0)])


@converts("SVMRegressor", domain=ML)
def svm_regressor(c: Node) -> Operand:
    x = _floats(c, c[0])
    k = _kernel(c, x, c.attr("n_supports", 0))
    weights = c.constant(np.array(c.attr("coefficients", [])).reshape(-1, 1), x)
    y: Operand = c.g.op("add", c.g.op("matmul", k, weights), c.constant(np.array(c.attr("rho", [0.0])), x))
    if c.attr("one_class", 0):
        y = c.g.op(
            "subtract",
            c.cast(c.g.op("greater", y, c.constant(0, y)), "float32"),
            c.cast(c.g.op("less_equal", y, c.constant(0, y)), "float32"),
        )
    return post_transformed(c, y, c.attr("post_transform", "NONE"))


def _kernel(c: Node, x: Operand, supports: int) -> Operand:
    """(rows, supports): the kernel function of each row with each support vector."""
    g, kind = c.g, c.attr("kernel_type", "LINEAR")
    gamma, shift, degree = (list(c.attr("kernel_params", [])) + [0.0] * 3)[:3]
    if not supports:  # linear weights themselves
        width = x.type.shape[1]
        return g.op("matmul", x, c.constant(np.eye(width), x))
    vectors = np.array(c.attr("support_vectors", [])).reshape(supports, -1)
    product = g.op("matmul", x, c.constant(np.ascontiguousarray(vectors.T), x))
    match kind:
        case "LINEAR":
            return product
        case "POLY":
            inner = g.op("add_scalar", g.op("multiply_scalar", product, scalar=gamma), scalar=shift)
            return g.op("power_scalar", inner, scalar=degree)
        case "SIGMOID":
            return g.op("tanh", g.op("add_scalar", g.op("multiply_scalar", product, scalar=gamma), scalar=shift))
        case "RBF":
            own = g.op("sum", g.op("multiply", x, x), axes=(1,), keepdims=True)
            other = c.constant((vectors**2).sum(1), x)
            distance = g.op("subtract", g.op("add", own, other), g.op("multiply_scalar", product, scalar=2.0))
            return g.op("exp", g.op("multiply_scalar", distance, scalar=-gamma))
    raise c.refuse(f"kernel_type {kind!r} is unknown")


@converts("SVMClassifier", domain=ML)
def svm_classifier(c: Node) -> tuple[Operand, Operand]:
    """One vote for each pair of classes (C.-C. Chang and C.-J. Lin, LIBSVM, 2011)."""
    if c.attr("prob_a", []):
        raise c.refuse("probabilities of support vectors are not read", "export without probabilities")
    c.attr("prob_b", [])
    g, x, labels = c.g, _floats(c, c[0]), _labels(c)
    counts = c.ints("vectors_per_class") or []
    if not counts:
        scores = _affine_rows(c, x, len(labels))
        return _chosen(c, scores, labels), post_transformed(c, scores, c.attr("post_transform", "NONE"))
    k, starts = _kernel(c, x, sum(counts)), np.concatenate([[0], np.cumsum(counts)])
    weights = np.array(c.attr("coefficients", [])).reshape(len(labels) - 1, -1)
    pairs = [(i, j) for i in range(len(labels)) for j in range(i + 1, len(labels))]
    matrix = np.zeros((sum(counts), len(pairs)))
    for n, (i, j) in enumerate(pairs):
        a, b = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
        matrix[a, n], matrix[b, n] = weights[j - 1, a], weights[i, b]
    margins = g.op("add", g.op("matmul", k, c.constant(matrix, x)), c.constant(np.array(c.attr("rho", [])), x))
    wins = c.cast(g.op("greater", margins, c.constant(0, margins)), x.type.dtype)
    first, second = np.zeros((len(pairs), len(labels))), np.zeros((len(pairs), len(labels)))
    for n, (i, j) in enumerate(pairs):
        first[n, i], second[n, j] = 1, 1
    losses = g.op("add_scalar", g.op("negative", wins), scalar=1.0)
    votes = g.op("add", g.op("matmul", wins, c.constant(first, x)), g.op("matmul", losses, c.constant(second, x)))
    how = c.attr("post_transform", "NONE")
    scores = g.op("concat", g.op("negative", margins), margins, axis=1) if len(labels) == 2 else margins
    return _chosen(c, votes, labels), post_transformed(c, scores, how)


def _affine_rows(c: Node, x: Operand, rows: int) -> Operand:
    weights = np.array(c.attr("coefficients", [])).reshape(rows, -1)
    y = c.g.op("matmul", x, c.constant(np.ascontiguousarray(weights.T), x))
    return c.g.op("add", y, c.constant(np.array(c.attr("rho", [0.0])), x))
