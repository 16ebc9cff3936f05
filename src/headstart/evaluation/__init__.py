"""Scores of a classifier: metrics, their intervals, calibration, and the evaluation of one split."""
