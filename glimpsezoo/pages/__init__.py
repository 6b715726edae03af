"""Web pages of one file that open without a network: what they have in common (html), plots, the report, and the page of traces (flip)."""
