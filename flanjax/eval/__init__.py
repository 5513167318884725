"""Evaluation: prompts, extraction, scores, statistics and records."""
