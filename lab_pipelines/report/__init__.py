"""The year in numbers: from the warehouse's views to pages that can be read, printed and mailed.

    read.py         views → `Report`             (reads)
    wording.py      numbers, gaps and provenance as text
    stage_table.py  the table of one load step, as cells and as Markdown
    certainty.py    how sure its numbers are: intervals, what they rest on
    against.py      a run beside the year's baseline
    sheet_table.py  the FinOps sheet of a run, and the year's reference sheet, as cells and as Markdown
    year.py         the year as one table: a row per lab
    trouble.py      what failed, what is missing, and why
    starts.py       the year's cold starts
    money.py        what a target's labs cost, as a sentence and pictures
    forecast.py     forecast against measured, as sentences and a picture
    lab_run.py      one run of a lab: its numbers to remember, tables and pictures
    chapters.py     which of it all stands in which chapter
    svg.py, axes.py a chart → SVG; axes, ticks, legends
    charts.py       rows → pictures
    figures.py      the pictures that a lab's spec asks for
    drawn.py        pictures of an earlier report, taken again while they are the same
    page.py         `Report` → HTML              (pure; templates/ and page.css)
    markdown.py     `Report` → Markdown          (pure)
    readme.py       the README's table of the pinned baseline
    write.py        all of it → files            (writes)

Doesn't belong here: deciding what is true (warehouse/views, findings). The page repeats; it does not compute.
"""
