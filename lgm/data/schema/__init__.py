"""The data set schema: `index.json`, tar shards, the members of an object. Imports no torch."""
