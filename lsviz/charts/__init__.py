"""Figures: pure functions, frames in, plotly figures out."""
