"""A small residual network of convolutions as one writes it for needle."""

import frontend as ndl


class ConvBN(ndl.nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, device=None, dtype="float32"):
        super().__init__()
        self.conv = ndl.nn.Conv(inputs, outputs, kernel, stride=stride, bias=True, device=device, dtype=dtype)
        self.bn = ndl.nn.BatchNorm2d(dim=outputs, device=device, dtype=dtype)
        self.relu = ndl.nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn(self.conv(x)))


class ResNet9(ndl.nn.Module):
    def __init__(self, channels=3, width=8, size=32, device=None, dtype="float32"):
        super().__init__()
        rest = {"device": device, "dtype": dtype}
        w, side = width, size // 8
        self.first = ndl.nn.Sequential(ConvBN(channels, w, 7, 2, **rest), ConvBN(w, 2 * w, 3, 2, **rest))
        self.second = ndl.nn.Residual(
            ndl.nn.Sequential(ConvBN(2 * w, 2 * w, 3, 1, **rest), ConvBN(2 * w, 2 * w, 3, 1, **rest))
        )
        self.third = ConvBN(2 * w, 4 * w, 3, 2, **rest)
        self.fourth = ndl.nn.Residual(
            ndl.nn.Sequential(ConvBN(4 * w, 4 * w, 3, 1, **rest), ConvBN(4 * w, 4 * w, 3, 1, **rest))
        )
        self.flatten = ndl.nn.Flatten()
        self.linear1 = ndl.nn.Linear(4 * w * side * side, 4 * w, **rest)
        self.relu = ndl.nn.ReLU()
        self.linear2 = ndl.nn.Linear(4 * w, 10, **rest)

    def forward(self, x):
        x = self.fourth(self.third(self.second(self.first(x))))
        return self.linear2(self.relu(self.linear1(self.flatten(x))))
