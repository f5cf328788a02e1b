"""A residual MLP as one writes it for needle, and its training loop."""

import numpy as np

import frontend as ndl
import frontend.nn as nn


def block(dim, hidden, norm, drop):
    path = nn.Sequential(
        nn.Linear(dim, hidden), norm(hidden), nn.ReLU(), nn.Dropout(drop), nn.Linear(hidden, dim), norm(dim)
    )
    return nn.Sequential(nn.Residual(path), nn.ReLU())


def make(features, hidden, blocks, classes, norm=nn.BatchNorm1d, drop=0.1):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(),
        *[block(hidden, hidden // 2, norm, drop) for _ in range(blocks)], nn.Linear(hidden, classes),
    )  # fmt: skip


def epoch(loader, model, opt=None):
    """Error rate and mean loss; trains if there is an optimizer."""
    model.train() if opt else model.eval()
    loss_of, wrong, total, seen = nn.SoftmaxLoss(), 0.0, 0.0, 0
    for x, y in loader:
        logits = model(x)
        loss = loss_of(logits, y)
        if opt:
            opt.reset_grad()
            loss.backward()
            opt.step()
        wrong += np.sum(logits.numpy().argmax(axis=1) != y.numpy())
        total += loss.numpy() * y.shape[0]
        seen += y.shape[0]
    return wrong / seen, total / seen


def train(train_set, test_set, features, epochs=3, optimizer=ndl.optim.Adam, lr=0.005, weight_decay=0.001):
    model = make(features, 32, 2, 10)
    opt = optimizer(model.parameters(), lr=lr, weight_decay=weight_decay)
    loader = ndl.data.DataLoader(dataset=train_set, batch_size=64, shuffle=True)
    history = [epoch(loader, model, opt) for _ in range(epochs)]
    return model, history, epoch(ndl.data.DataLoader(dataset=test_set, batch_size=64), model)
