"""The dashboard: Streamlit pages that ask the probes for results and show them. Importing this package imports
nothing.
"""
