"""How each study's numbers are shown and what they say: one study a file.

Each has `TITLE`, `panels(rows)` and `find(rows)`: the figure and the sentences are made of the rows
of `data.csv` and nothing else. A row has "net", "family" and "depth", and what the study measured.
"""
