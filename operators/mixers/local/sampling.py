"""Weighted sums of bilinear samples of a field, zero beyond its border."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sampled(values: Tensor, rows: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    """Σ_k w_k v(row_k, column_k) for each place, (B, H, W, G, e), by torch's own sampling.

    Images are padded to sides that are powers of two. Coordinates that are whole then stay so in torch's units, and
    derivatives there are those towards the next row and column, as in `sampled_by_corners`.

    Args:
        values: (B, H, W, G, e), G groups of channels.
        rows: (B, H, W, G, K), K points for each place and group, in tokens from the first row.
        columns: the same from the first column.
        weights: (B, H, W, G, K).
    """
    batch, height, width, groups, channels = values.shape
    number = weights.shape[-1]
    sides = [1 << (side - 1).bit_length() for side in (height, width)]
    images = F.pad(values.permute(0, 3, 4, 1, 2), (0, sides[1] - width, 0, sides[0] - height)).flatten(0, 1)
    units = torch.stack([(2 * columns + 1) / sides[1] - 1, (2 * rows + 1) / sides[0] - 1], dim=-1)
    places = units.permute(0, 3, 4, 1, 2, 5).reshape(batch * groups, number, height * width, 2)
    samples = F.grid_sample(images, places, mode="bilinear", padding_mode="zeros", align_corners=False)
    by_point = weights.permute(0, 3, 4, 1, 2).reshape(batch * groups, 1, number, height * width)
    summed = (samples * by_point).sum(2)
    return summed.view(batch, groups, channels, height, width).permute(0, 3, 4, 1, 2)


def sampled_by_corners(values: Tensor, rows: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    """As `sampled`, plainly: the four tokens around each point, each with its share."""
    batch, height, width, groups, channels = values.shape
    top, left = rows.detach().floor(), columns.detach().floor()
    below, right = rows - top, columns - left
    tokens, shares = [], []
    for row, share_of_row in ((top, 1 - below), (top + 1, below)):
        for column, share_of_column in ((left, 1 - right), (left + 1, right)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            token = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            tokens.append(token.long())
            shares.append(torch.where(inside, weights * share_of_row * share_of_column, 0))
    token, share = (torch.cat(each, dim=-1).permute(0, 3, 1, 2, 4).flatten(2, 3) for each in (tokens, shares))
    field = values.permute(0, 3, 1, 2, 4).flatten(2, 3)
    corners = field.gather(2, token.flatten(2)[..., None].expand(-1, -1, -1, channels))
    summed = share[..., None, :] @ corners.reshape(*share.shape, channels)
    return summed.view(batch, groups, height, width, channels).permute(0, 2, 3, 1, 4)
