"""The report: tables, figures and method cards as one self-contained HTML file.

Data flow: folders → `gather` → `sections` (grids and figures) → `page` (Jinja templates). All numbers are computed by
`dropattack.analysis` and only displayed here. Text from records is escaped wherever it is shown.
"""
