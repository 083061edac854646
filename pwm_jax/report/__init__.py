"""From numbers on disk to tables, figures, videos, published results and one self-contained HTML page.

Nothing here trains or steps an environment; heavy libraries are imported inside the functions that need them.
"""
