"""The dashboard. streamlit appears here alone."""
