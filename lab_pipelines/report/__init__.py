"""The year in numbers: from the warehouse's views to one page that can be read, printed and mailed.

    read.py         views → `Report`             (reads)
    wording.py      numbers, gaps and provenance as text
    stage_table.py  the table of one ladder of users, as cells and as Markdown
    charts.py       rows → SVG
    page.py         `Report` → HTML, Markdown    (pure)
    write.py        all of it → files            (writes)

Doesn't belong here: deciding what is true (warehouse/views, findings). The page repeats; it does not compute.
"""
