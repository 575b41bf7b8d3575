"""What `python -m data_tools.download` is made of: catalogues that name objects, and what fetches them."""
