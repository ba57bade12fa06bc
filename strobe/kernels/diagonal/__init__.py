"""Elementwise linear recurrences: minGRU, minLSTM, LRU, S4D, S5, RG-LRU, HGRN, GateLoop."""

from strobe.kernels.diagonal.recurrence import diagonal_scan

__all__ = ["diagonal_scan"]
