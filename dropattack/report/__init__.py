"""One page of everything: tables, figures and method cards as one HTML file that needs nothing else.

The way of the data: folders → `gather` → `sections` (grids and figures) → `page` (Jinja templates). Every number is
made by `dropattack.analysis`; here it is only set. What a record says is escaped wherever it is shown.
"""
