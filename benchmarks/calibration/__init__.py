"""Public measurements of serving engines, and how far the engine model is from them.

    python -m benchmarks.calibration [--rows FILE]

    rows.yaml   the measurements, each with its source
    rows        the form of such a file
    simulate    what the engine model says of the same loads
    compare     each quantity of each row beside what was measured
    __main__    the table, JSON, the plot

Doesn't belong here: the constants that follow from it (lab_pipelines/engine/hardware.yaml), the range in which the
model may be trusted (lab_pipelines/engine/trust.yaml).
"""
