"""Blog posts: templates in blog/posts whose every number is the answer to a file in blog/queries.

Belongs here: reading a template (template.py), asking its questions (answers.py), filling it in (render.py, pure) and
writing the post with its evidence beside it (write.py).
Doesn't belong here: the posts and their questions (blog/), what is quoted from the catalogue (lab_pipelines/catalog).
"""
