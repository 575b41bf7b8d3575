"""The app: four images, one image or a text to an object that turns in the page.

gradio is known by `page.py` and `parts.py` alone. What stands behind it is plain Python: `store` (folders
that expire), `uploads` (whose files are trusted with nothing), `jobs` (a queue with a limit), `studio` (what
is computed), `sessions` (what a page is told), `door` (what a network may ask for) and `serve`.
"""
