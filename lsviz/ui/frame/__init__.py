"""The script that runs for each visitor, away from pages/: Streamlit would take those for its own."""
