"""Which labs there are: one typed YAML spec each, and the facts (prices) that all of them share.

Doesn't belong here: how a lab is deployed or measured (resources/), or anything that a spec cannot state as data.
"""
