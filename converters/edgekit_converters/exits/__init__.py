"""Certified exits: thresholds whose risk is bounded with a stated confidence."""
