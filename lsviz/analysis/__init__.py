"""What recorded runs say: pure functions, frames in, frames out, no torch and no disk."""
