"""The script that Streamlit runs for every view.

It sits apart from ``pages/``: Streamlit takes a folder of that name beside the script for an app of its old kind, and
runs a page alone when a link to it is the first thing a fresh server is asked for.
"""

if __name__ == "__main__":
    from strobe.dashboards.app import main

    main()
