"""Entry of ``streamlit run app.py``."""

from lsviz.ui.main import main

main()
