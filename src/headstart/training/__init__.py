"""Probe, fine-tuning, checkpoints and history."""
