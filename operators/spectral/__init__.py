"""Filters of real fields on an image grid: their transforms, beside the direct sums that define them."""
