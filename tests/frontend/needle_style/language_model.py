"""A language model over a recurrent layer or a transformer, as one writes it for needle, and its training loop."""

import frontend as ndl
import frontend.nn as nn


class LanguageModel(nn.Module):
    def __init__(
        self,
        embedding_size,
        output_size,
        hidden_size,
        num_layers=1,
        seq_model="lstm",
        seq_len=40,
        device=None,
        dtype="float32",
    ):
        super().__init__()
        rest = {"device": device, "dtype": dtype}
        self.output_size, self.width = output_size, embedding_size if seq_model == "transformer" else hidden_size
        self.embedding = nn.Embedding(output_size, embedding_size, **rest)
        if seq_model == "rnn":
            self.seq_model = nn.RNN(embedding_size, hidden_size, num_layers, **rest)
        elif seq_model == "lstm":
            self.seq_model = nn.LSTM(embedding_size, hidden_size, num_layers, **rest)
        else:
            self.seq_model = nn.Transformer(
                embedding_size, hidden_size, num_layers, num_head=2, dim_head=8, sequence_len=seq_len, **rest
            )
        self.linear = nn.Linear(self.width, output_size, **rest)

    def forward(self, x, h=None):
        seq_len, bs = x.shape
        out, h = self.seq_model(self.embedding(x), h)
        return self.linear(out.reshape((seq_len * bs, self.width))), h


def epoch(data, model, seq_len=20, opt=None, clip=None):
    """The mean loss; trains, by truncated back-propagation through time, if there is an optimizer."""
    model.train() if opt else model.eval()
    loss_of, total, seen, h = nn.SoftmaxLoss(), 0.0, 0, None
    for i in range(0, data.shape[0] - 1, seq_len):
        x, y = ndl.data.get_batch(data, i, seq_len, device=ndl.cpu(), dtype="float32")
        out, h = model(x, h)
        h = tuple(s.detach() for s in h) if isinstance(h, tuple) else h.detach()
        loss = loss_of(out, y)
        if opt:
            opt.reset_grad()
            loss.backward()
            if clip is not None:
                opt.clip_grad_norm(clip)
            opt.step()
        total += loss.numpy() * y.shape[0]
        seen += y.shape[0]
    return total / seen
