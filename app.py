"""Entry of ``streamlit run app.py``: the server; run as a script, the dashboard itself."""

import streamlit as st

from lsviz.ui.frame.main import main
from lsviz.ui.serving import MIDDLEWARE, SCRIPT, in_script, warm_up

if in_script():
    main()
else:
    app = st.App(SCRIPT, lifespan=warm_up, middleware=MIDDLEWARE)
