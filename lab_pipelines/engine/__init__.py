"""The serving model: how long an engine step takes, what a scheduler puts into it, and a server that plays it.

Belongs here: tables of hardware, models and cold starts; the pure step function; the OpenAI server driven by it.
Doesn't belong here: labs, leases and processes (resources/), or anything that knows of Dagster.
docs/engine-model.md tells the model as a whole.
"""
