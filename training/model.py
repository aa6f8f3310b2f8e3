"""The causal network of FEATURES.md: two strided convolutions, residual depthwise blocks, a slow mean, two CTC heads."""
import torch
import torch.nn.functional as F
from torch import nn

DIGIT_WORDS = "zero one two three four five six seven eight nine oh double triple".split()
DIGITS = ["-", *DIGIT_WORDS]
WORDS = ["-", *DIGIT_WORDS, *"yes no repeat agent operator cancel stop go back hundred thousand dollars dollar cents and point".split(),
         *"ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(),
         *"twenty thirty forty fifty sixty seventy eighty ninety".split(),
         *"january february march april may june july august september october november december".split(), "<other>"]
BANDS, FIRST, WIDTH, INNER, KERNEL = 32, 80, 160, 288, 5
DILATIONS = (1, 2, 4, 2, 4)
MEAN_AFTER, MEAN_RATE = 2, 0.02


class Strided(nn.Module):
    """Causal convolution, kernel 5, stride 2, on `[batch][time][channels]`."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, KERNEL, stride=2, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (0, 0, KERNEL - 2, 0))
        window = x.unfold(1, KERNEL, 2)  # [batch][time][channels][kernel]
        y = F.linear(window.flatten(2), self.conv.weight.flatten(1))
        return F.relu(normed(self.norm, y))


class Block(nn.Module):
    """x + narrow(relu(widen(depthwise(x))))."""

    def __init__(self, dilation: int):
        super().__init__()
        self.dilation = dilation
        self.depthwise = nn.Conv1d(WIDTH, WIDTH, KERNEL, dilation=dilation, groups=WIDTH, bias=False)
        self.depth_norm = nn.BatchNorm1d(WIDTH)
        self.widen = nn.Linear(WIDTH, INNER, bias=False)
        self.wide_norm = nn.BatchNorm1d(INNER)
        self.narrow = nn.Linear(INNER, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reach = (KERNEL - 1) * self.dilation
        padded, time = F.pad(x, (0, 0, reach, 0)), x.shape[1]
        taps = self.depthwise.weight[:, 0]
        y = sum(padded[:, j * self.dilation : j * self.dilation + time] * taps[:, j] for j in range(KERNEL))
        y = F.relu(normed(self.wide_norm, self.widen(normed(self.depth_norm, y))))
        return x + self.narrow(y)


class SlowMean(nn.Module):
    """x + W ema(x): what this caller and this line sound like."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(WIDTH, WIDTH)
        nn.init.zeros_(self.mix.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ages = torch.arange(x.shape[1], device=x.device)
        age = ages[:, None] - ages[None, :]
        decay = torch.where(age >= 0, MEAN_RATE * (1 - MEAN_RATE) ** age.clamp(min=0), 0.0).to(x.dtype)
        return x + self.mix(torch.matmul(decay, x))


def normed(norm: nn.BatchNorm1d, x: torch.Tensor) -> torch.Tensor:
    return norm(x.flatten(0, 1)).view(x.shape)


class Net(nn.Module):
    """Features `[batch][frames][32]` to log-posteriors of both heads, and the spans' logits, at a quarter of the rate."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Strided(BANDS, FIRST), Strided(FIRST, WIDTH)
        self.blocks = nn.ModuleList(Block(d) for d in DILATIONS)
        self.mean = SlowMean()
        self.last = nn.Linear(WIDTH, WIDTH, bias=False)
        self.last_norm = nn.BatchNorm1d(WIDTH)
        self.digits, self.words = nn.Linear(WIDTH, len(DIGITS)), nn.Linear(WIDTH, len(WORDS))
        self.spans = nn.Linear(WIDTH, len(DIGITS))  # which word is being said: helps training, not exported

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.second(self.first(x))
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i + 1 == MEAN_AFTER:
                x = self.mean(x)
        x = F.relu(normed(self.last_norm, self.last(x)))
        x = F.dropout1d(x.transpose(1, 2), 0.1, self.training).transpose(1, 2)  # whole channels of a row
        return F.log_softmax(self.digits(x).float(), -1), F.log_softmax(self.words(x).float(), -1), self.spans(x).float()
