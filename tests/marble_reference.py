"""MARBLE v2's protocol a second time: slow, plain, from its description and not from our code.

Slices of int(slice_s · rate) frames at the file's rate, a tail only from 0.8 of a slice on, each
resampled by itself and padded with zeros on the right to int(slice_s · 24000) samples; the head
is Conv1d over layers (if all are taken), Linear, ReLU, Dropout, Linear; a file's test prediction is
the mean over its slices.
"""

from __future__ import annotations

import numpy as np
import soundfile
import soxr
import torch

TARGET_HZ = 24_000


def slices_of_file(path, slice_s, channel_mode):
    """Every slice of a file, of shape (n_slices, int(slice_s · 24000))."""
    data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if channel_mode == "first":
        mono = data[:, 0]
    else:
        mono = np.array([sum(frame) / len(frame) for frame in data], dtype="float32")
    size, full = int(slice_s * rate), int(slice_s * TARGET_HZ)
    slices = []
    start = 0
    while start < len(mono):
        piece = mono[start : start + size]
        if len(piece) / size >= 0.8:
            if rate != TARGET_HZ:
                piece = soxr.resample(piece, rate, TARGET_HZ, quality="HQ")
            slices.append(np.concatenate([piece, np.zeros(full - len(piece), "float32")]))
        start += size
    return np.array(slices).reshape(len(slices), full)


class Head(torch.nn.Module):
    """The head, in double precision; dropout takes its mask from outside."""

    def __init__(self, n_layers, dim, n_outputs, weights):
        super().__init__()
        self.conv = torch.nn.Conv1d(n_layers, 1, 1) if n_layers else None
        self.first, self.second = torch.nn.Linear(dim, 512), torch.nn.Linear(512, n_outputs)
        self.double()
        with torch.no_grad():
            if n_layers:
                self.conv.weight[0, :, 0] = weights["mix"][0]
                self.conv.bias[0] = weights["mix_offset"].squeeze()
            self.first.weight[:] = weights["weight_in"][0].T
            self.first.bias[:] = weights["bias_in"].flatten()
            self.second.weight[:] = weights["weight_out"][0].T
            self.second.bias[:] = weights["bias_out"].flatten()

    def forward(self, x, kept=None):
        x = x.double()
        if self.conv is not None:
            x = self.conv(x)[:, 0]
        h = torch.relu(self.first(x))
        if kept is not None:
            h = h * kept / 0.8
        return self.second(h)

    def weights(self):
        """In the names and shapes of ours."""
        found = {
            "weight_in": self.first.weight.T[None],
            "bias_in": self.first.bias[None, None],
            "weight_out": self.second.weight.T[None],
            "bias_out": self.second.bias[None, None],
        }
        if self.conv is not None:
            found |= {"mix": self.conv.weight[:, :, 0], "mix_offset": self.conv.bias[None, None]}
        return found


def file_predictions(head, tracks, average):
    """Mean over each file's slices, of softmax probabilities or of the outputs."""
    found = []
    for slices in tracks:
        each = []
        for one in slices:
            with torch.no_grad():
                outputs = head(torch.tensor(np.asarray(one, "float32"))[None])[0]
            each.append(torch.softmax(outputs, 0) if average == "probabilities" else outputs)
        found.append(torch.stack(each).mean(0).numpy())
    return np.array(found)
